"""The product: extract, align and train, as they are typed, on a miniature MagnaTagATune.

The miniature passes for the published dataset: `extract` is told that so few clips are all.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from kit import tone, write
from miniatures import write_mtat
from safetensors.torch import save_file
from weight_files import OPENL3_FILE, openl3_layers, pca, write_keras

from featreg.datasets.base import SPLITS
from featreg.datasets.collections import mtat
from featreg.datasets.shards.aligned import read_index
from featreg.datasets.shards.native import native_shard
from featreg.extract.cli.prep import prep
from featreg.extract.extractors.vggish import Network
from featreg.train.cli.train import train
from featreg.train.data.aligned_set import AlignedSet
from featreg.train.training.run_dir import RunDir

SECONDS = 2.3

THREE_LINES = (
    "prep extract --dataset mtat --features vggish,openl3",
    "prep align --resolution 0.1",
    "train run --reg conreg",
)

# clip id: (path, tags). In each split two tags are there in one clip and not in another, so
# that their scores exist.
CLIPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "2": ("0/low-0-29.mp3", ("guitar",)),
    "6": ("5/high-0-29.mp3", ("slow",)),
    "10": ("a/both-0-29.mp3", ("guitar", "slow")),
    "11": ("b/neither-0-29.mp3", ("classical",)),
    "21": ("c/low-29-58.mp3", ("guitar",)),
    "22": ("c/high-29-58.mp3", ("slow", "choral")),
    "31": ("d/low-58-87.mp3", ("guitar",)),
    "32": ("f/high-58-87.mp3", ("slow",)),
}


@pytest.fixture(autouse=True)
def _no_more_was_published(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counter(mtat.SPLIT_OF_FOLDER[path[0]] for path, _ in CLIPS.values())
    train, valid, test = (counts[split] for split in SPLITS)
    monkeypatch.setattr(mtat, "INFO", replace(mtat.INFO, clips=(train, valid, test)))


@pytest.fixture(scope="module")
def work(seeded: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the files of the dataset, and one with weights beside it."""
    work = tmp_path_factory.mktemp("lines") / "work"
    source = work / "mtat" / "source"
    source.mkdir(parents=True)
    write_mtat(source, CLIPS)
    for path in source.rglob("*.mp3"):
        write(path, tone(SECONDS, 16000, seed=len(path.name)), 16000)
    folder = work.parent / "weights"
    folder.mkdir()
    torch.manual_seed(0)
    save_file(Network().state_dict(), folder / "vggish.safetensors")
    np.savez(folder / "vggish_pca_params.npz", **pca(seeded))
    write_keras(folder / OPENL3_FILE, openl3_layers(seeded, "mel256"))
    return work


def type_in(line: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """What a command line gives, with the working folder in the environment."""
    monkeypatch.setenv("FEATREG_WORK", str(work))
    monkeypatch.setenv("FEATREG_WEIGHTS", str(work.parent / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(work.parent / "cache"))
    command, *arguments = line.split()
    return CliRunner().invoke({"prep": prep, "train": train}[command], arguments)


def test_the_three_lines(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Beside the product's own words: no cluster of workers, and of the published recipe's
    # network and epochs as little as will do.
    line = f"{THREE_LINES[0]} --workers 1"
    done = type_in(line, work, monkeypatch)
    assert done.exit_code == 0, done.output
    paths = sorted((work / "mtat" / "native").glob("*/00000.h5"))
    assert [path.parent.name for path in paths] == ["audio", "openl3", "vggish"]
    with native_shard(paths[1]) as openl3, native_shard(paths[2]) as vggish:
        assert openl3.header.settings["content_type"] == "music"
        assert vggish.header.dtype == "uint8"
        clip = vggish.clip_ids[0]
        rows = {"vggish": vggish.values(clip), "openl3": openl3.values(clip)}
    again = type_in(line, work, monkeypatch)
    assert again.exit_code == 0, again.output

    done = type_in(THREE_LINES[1], work, monkeypatch)
    assert done.exit_code == 0, done.output
    path = work / "mtat" / "aligned" / "vggish+openl3-0.1s" / "00000.h5"
    index = read_index(path)
    columns = {name: feature["columns"] for name, feature in index.header.features.items()}
    assert columns == {"vggish": [0, 128], "openl3": [128, 640]}
    k = index.clip_id.index(clip)
    first, last = index.offset[k], index.offset[k + 1]
    assert last - first == np.ceil(index.duration_s[k] / 0.1 - 1e-6)
    # A VGGish row stands for ten; the last row of a stream holds to the clip's end.
    for name, times in (("vggish", 10), ("openl3", 1)):
        held = np.minimum(np.arange(last - first) // times, len(rows[name]) - 1)
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file[f"features/{name}"][first:last], rows[name][held])

    line = f"{THREE_LINES[2]} --width 2 --epochs 2 --batch-size 2"
    done = type_in(line, work, monkeypatch)
    assert done.exit_code == 0, done.output
    (aligned,) = (work / "mtat" / "aligned").iterdir()
    assert AlignedSet(aligned).dim(("vggish", "openl3")) == 640
    check_run(work, 2, monkeypatch)
    assert list(pd.read_csv(work / "mtat" / "failures.csv").columns) == [
        "clip_id",
        "stage",
        "reason",
    ]


@pytest.mark.slow
def test_the_three_lines_with_nothing_added(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 14 minutes on two cores. Here are the files of the dataset alone: all else the lines make.
    shutil.copytree(work / "mtat" / "source", tmp_path / "work" / "mtat" / "source")
    (tmp_path / "weights").symlink_to(work.parent / "weights")
    for line in THREE_LINES:
        done = type_in(line, tmp_path / "work", monkeypatch)
        assert done.exit_code == 0, done.output
    check_run(tmp_path / "work", 200, monkeypatch)


def check_run(work: Path, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run is there, with its numbers; its model is read again and gives the same ones."""
    (run,) = map(RunDir, (work / "runs").iterdir())
    config, report = run.config(), run.read_json("report.json")
    assert (config.preset, config.reg, config.alpha) == ("mtat", "conreg", 5.0)
    assert config.features == ("vggish", "openl3")
    assert len(pd.read_csv(run.path / "metrics.csv")) == epochs
    scored = [row["name"] for row in report["classes"] if row["roc_auc"] is not None]
    assert scored == ["guitar", "slow"]
    assert {"pr_auc", "roc_auc"} <= {*report["test"]}
    done = type_in(f"train eval {run.name} --format json", work, monkeypatch)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"] == report["test"]


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("prep extract --dataset nowhere --features audio", 2, "no dataset called 'nowhere'"),
        ("prep extract --dataset mtat --features chroma", 2, "no such feature"),
        ("prep extract --dataset mtat --features musicnn --set musicnn.model=MTT", 2, "trained on"),
        ("prep extract --dataset mtat --features openl3 --set openl3.hop=x", 2, "expected a float"),
        (
            "prep extract --dataset mtat --features openl3 --set openl3.pitch=1",
            2,
            "no such setting",
        ),
        ("prep extract --dataset dcase2017 --features audio", 1, "dcase2017"),
        ("prep align --resolution 0", 2, "seconds above 0"),
        ("prep align --resolution 0.1 --features musicnn", 1, "no native shards of 'musicnn'"),
        ("prep align --resolution 0.1 --dataset demo", 2, "no such dataset"),
        ("prep inspect .", 1, "no shard"),
        ("train run --aligned 1s", 2, "1s"),
        ("train run --features musicnn", 2, "musicnn"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_status(
    line: str, status: int, words: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = type_in(line, work, monkeypatch)
    said = [part for part in done.output.splitlines() if part.startswith("error:")]
    assert done.exit_code == status, done.output
    assert len(said) == 1, done.output
    assert words in said[0]
    assert "Traceback" not in done.output


@pytest.mark.parametrize("line", ["prep align --resolution 0.1", "train run --reg conreg"])
def test_what_comes_too_early_names_the_step_before(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = type_in(line, tmp_path / "empty", monkeypatch)
    assert done.exit_code == 1
    assert "prep extract" in done.output
