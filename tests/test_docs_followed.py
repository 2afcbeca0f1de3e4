"""The documentation, followed to the letter: its files written, its commands run, in order."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from command_lines import find
from pages import ROOT, blocks, execute, follow, in_shell

from featreg.datasets.shards.aligned import read_index
from featreg.datasets.shards.native import native_shard
from featreg.extract.cli.prep import prep
from featreg.extract.pipeline import dask_pool as cluster
from featreg.train.cli.train import train

DOCS = ROOT / "docs"
DEMO = ROOT / "datasets" / "collections" / "demo_clips"
CLASSES = ("drums", "guitar", "voice")
CLIPS = 12  # of each class

Type = Callable[[str], tuple[int, str]]


@contextmanager
def seated(folder: Path) -> Iterator[Type]:
    """Types in a folder; our commands run in this process, where torch is loaded."""

    def type_in(line: str) -> tuple[int, str]:
        line, _, target = line.partition(" > ")
        words = find(line)
        if words is None:
            return in_shell(f"{line} > {target}" if target else line, folder, os.environ)
        done = CliRunner().invoke({"prep": prep, "train": train}[words[0]], words[1:])
        if not target:
            return done.exit_code, done.output
        (folder / target).write_text(done.stdout)
        return done.exit_code, done.stderr

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("FEATREG_WORK", "FEATREG_DATA", "FEATREG_WEIGHTS"):
            patch.delenv(name, raising=False)
        patch.setenv("COLUMNS", "200")
        patch.setattr(cluster, "CPU_COUNT", 1)  # a few clips wait for no cluster
        yield type_in


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tutorial was followed."""
    folder = tmp_path_factory.mktemp("tutorial")
    with seated(folder) as type_in:
        assert follow(DOCS / "tutorial.md", folder, type_in) >= 12
    return folder


def test_the_tutorial(desk: Path) -> None:
    runs = {path.name for path in (desk / "featreg-work" / "runs").iterdir()}
    folds = {f"clips-probe-musicnn-fold{fold}-of3-s0" for fold in (1, 2, 3)}
    assert runs == {"alone", "shaped", "clips-probe-musicnn-s0", *folds}
    assert (desk / "featreg-work" / "reports" / "clips.html").is_file()
    laid_out = {folder.name: len(list(folder.iterdir())) for folder in desk.glob("recordings/*")}
    assert laid_out == dict.fromkeys(CLASSES, CLIPS)


@pytest.mark.parametrize(
    ("page", "commands"), [("use-a-model", 9), ("in-python", 9), ("troubleshooting", 15)]
)
def test_what_follows_the_tutorial(page: str, commands: int, desk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "music"
    shutil.copytree(desk, folder)
    with seated(folder) as type_in:
        assert follow(DOCS / f"{page}.md", folder, type_in) >= commands


def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((DOCS / "notebooks" / "audio-to-conreg.ipynb").read_text())
    monkeypatch.setenv("MPLBACKEND", "agg")
    session: dict[str, Any] = {}
    with seated(tmp_path) as type_in:
        for cell in notebook["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and source.startswith("!"):
                for line in source.splitlines():
                    status, said = type_in(line.removeprefix("!"))
                    assert status == 0, said
            elif cell["cell_type"] == "code":
                execute(source, session, cell["id"])
    task, distance = session["history"].T
    assert task[-1] < task[0]
    assert distance[-1] < distance[0] - 0.2  # from about 1, the distance of random directions


def test_the_five_lines_of_python(tmp_path: Path) -> None:
    (block,) = [block for block in blocks(ROOT / "README.md") if block.kind == "python"]
    assert len([line for line in block.body.splitlines() if line]) <= 5
    (tmp_path / "lines.py").write_text(block.body)
    status, said = in_shell(f"python {tmp_path / 'lines.py'}", ROOT, os.environ)
    assert status == 0, said
    assert re.match(r"\(\d+, 753\) \[", said)


def test_the_reader_of_twenty_lines_reads_every_shard(desk: Path) -> None:
    (block,) = [block for block in blocks(DOCS / "disk-format.md") if block.title]
    code = [line for line in block.body.splitlines() if line.strip()]
    assert len(code) <= 20
    space: dict[str, Any] = {}
    exec(compile(block.body, block.title, "exec"), space)
    work = desk / "featreg-work" / "clips"
    read = 0
    for path in sorted(work.glob("native/*/*.h5")):
        found = list(space["native"](path))
        with native_shard(path) as shard:
            for clip, rows, seconds in found:
                np.testing.assert_allclose(rows, shard.values(clip), rtol=1e-6)
                timing = shard.header.timing
                np.testing.assert_allclose(np.diff(seconds), timing.hop_s, rtol=1e-6)
                assert (len(seconds), seconds[0]) == (len(rows), timing.first_center_s)
                read += 1
    for path in sorted(work.glob("aligned/*/*.h5")):
        index = read_index(path)
        for k, (clip, features, audio, label, mask) in enumerate(space["aligned"](path)):
            assert clip == index.clip_id[k]
            assert {len(rows) for rows in features.values()} == {
                math.ceil(index.duration_s[k] / index.header.resolution_s)
            }
            assert len(audio) == round(index.duration_s[k] * index.header.audio_rate)
            assert np.abs(audio).max() <= 1
            np.testing.assert_array_equal(label, index.label[k])
            np.testing.assert_array_equal(mask, index.label_mask[k])
            read += 1
    assert read == 3 * CLIPS * 3  # audio, musicnn, aligned


def test_the_specification_names_all_that_shards_hold(desk: Path) -> None:
    page = (DOCS / "disk-format.md").read_text()
    for path in (desk / "featreg-work" / "clips").rglob("00000.h5"):
        with h5py.File(path) as file:
            for name in file:
                assert f"`{name}" in page, f"{path}: dataset {name}"
            for name in file.attrs:
                assert f"`{name}`" in page, f"{path}: attribute {name}"


# On one core, so that a dozen clips wait for no cluster.
PROGRAM = """\
#!{python}
import os
from featreg.{module}.cli.{name} import {name}
if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
    {name}()
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the tree, to change and to run."""
    folder = tmp_path / "featreg-copy"
    for name in ("featreg", "datasets", "extract", "train", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "demo_clips", "*.safetensors")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    collections, extractors = Path("datasets", "collections"), Path("extract", "extractors")
    (folder / collections / "demo_clips").symlink_to(DEMO)
    for path in (ROOT / extractors).glob("*.safetensors"):
        (folder / extractors / path.name).symlink_to(path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("prep", "extract"), ("train", "train")):
        program = PROGRAM.format(python=sys.executable, module=module, name=name)
        (programs / name).write_text(program)
        (programs / name).chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("page", "commands"),
    [
        ("add-a-dataset", 2),
        pytest.param("add-a-feature", 12, marks=pytest.mark.slow),
        pytest.param("add-an-architecture", 5, marks=pytest.mark.slow),
    ],
)
def test_how_to_add(page: str, commands: int, copy: Path) -> None:
    environment = {
        "PATH": f"{copy.parent / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "HOME": str(copy.parent),
    }
    where = "import featreg.datasets.base as base; print(base.__file__)"
    status, said = in_shell(f'python -c "{where}"', copy, environment)
    assert (status, Path(said.strip()).resolve()) == (0, copy / "datasets" / "base.py")

    typed = follow(DOCS / f"{page}.md", copy, lambda line: in_shell(line, copy, environment))
    assert typed >= commands
    # What was added is in the style of the house.
    changed = {block.title for block in blocks(DOCS / f"{page}.md") if "/" in block.title}
    for tool in ("ruff check", "ruff format --check"):
        status, said = in_shell(f"python -m {tool} {' '.join(changed)}", copy, environment)
        assert status == 0, said
