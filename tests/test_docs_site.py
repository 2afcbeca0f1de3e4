"""The pages and the API reference build, and a warning is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="'.[docs]' is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("room", ["datasets", "extract", "train"])
def test_every_module_is_in_the_reference(room: str, site: Path) -> None:
    page = (site / "api" / room / "index.html").read_text()
    for path in (ROOT / room).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.stem != "__init__" and not path.stem.startswith("_"):
            assert f'id="featreg.{".".join(parts)}' in page, path


def test_every_command_is_in_the_reference(site: Path) -> None:
    from featreg.extract.cli.prep import prep
    from featreg.train.cli.train import train

    page = (site / "commands" / "index.html").read_text()
    for group in (prep, train):
        for name, command in group.commands.items():
            if command.hidden:
                continue
            assert f'id="{group.name}-{name}"' in page, name
            for parameter in command.params:
                assert parameter.opts[0] in page, (name, parameter.opts)
    assert "Sentinel" not in page
