"""The pages and the API reference build, and a warning is an error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import featreg

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="'.[docs]' is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_public_name_has_a_page(site: Path) -> None:
    pages = "".join(path.read_text() for path in (site / "api").glob("*/index.html"))
    for name in set(featreg.__all__) - {"__version__"}:
        assert re.search(rf'id="featreg\.[\w.]*\b{name}"', pages), name


def test_pages_link_to_their_neighbours_and_both_themes(site: Path) -> None:
    page = (site / "tutorial" / "index.html").read_text()
    assert 'rel="next"' in page
    assert 'rel="prev"' in page
    assert page.count('name="__palette"') == 2


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
