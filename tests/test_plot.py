"""The picture of a clip: everything on one time axis, read from native or aligned shards."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from click.testing import CliRunner
from kit import make_dataset
from loudness import LoudnessConfig
from matplotlib.figure import Figure

from featreg.datasets.workdir import DatasetDir
from featreg.extract.cli import prep
from featreg.extract.cluster import Workers
from featreg.extract.combine import align_shard, plan_alignment
from featreg.extract.features import FeatureSpec
from featreg.extract.plan import Request, make_plan
from featreg.extract.plot import read_scene
from featreg.extract.run import run_extraction
from featreg.extract.waveform import WaveformConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> DatasetDir:
    work = tmp_path_factory.mktemp("work")
    dataset = make_dataset(work / "source", {"train": 2})
    folder = DatasetDir(work / "tones")
    loudness = FeatureSpec("loudness", LoudnessConfig(), source="loudness:Loudness")
    request = Request((FeatureSpec("audio", WaveformConfig()), loudness))
    plan = make_plan(dataset, folder, request)
    run_extraction(dataset, folder, ["audio", "loudness"], plan, Workers(0, 1))
    for job in plan_alignment(folder, ("loudness",), 0.1, "area").jobs:
        align_shard(job)
    return folder


@pytest.mark.parametrize("part", ["native/loudness", "aligned"])
def test_a_scene_holds_audio_rows_and_labels_with_their_times(
    folder: DatasetDir, part: str
) -> None:
    scene = read_scene(folder.path / part, "train-1")
    assert scene.duration_s == pytest.approx(1.4, abs=1e-4)
    assert scene.audio is not None
    assert len(scene.audio) / scene.rate == pytest.approx(scene.duration_s, abs=1e-3)
    assert scene.labels == {"low": 1, "high": 0}
    track = scene.tracks["loudness"]
    if part == "aligned":
        assert (len(track.rows), track.begin_s, track.end_s) == (14, 0.0, pytest.approx(1.4))
    else:  # two rows, centred at 0.25 and 0.75 s
        assert (len(track.rows), track.begin_s, track.end_s) == (2, 0.0, 1.0)


def test_the_picture_has_one_time_axis(
    folder: DatasetDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kw: (drawn.append(self), save(self, *args, **kw))
    )
    line = ["inspect", str(folder.path / "aligned"), "--plot", str(tmp_path / "x.png")]
    done = CliRunner().invoke(prep, [*line, "--clip", "train-1"])
    assert done.exit_code == 0, done.output
    panels = [axis for axis in drawn[0].axes if axis.get_label() != "<colorbar>"]
    assert [axis.get_ylabel() for axis in panels] == ["kHz", "loudness", "labels"]
    for axis in panels:
        assert axis.get_xlim() == pytest.approx((0.0, 1.4), abs=1e-4)
    # One channel of the second clip is a tone of 440 Hz, the other one of 880 Hz.
    (spectrogram,) = panels[0].get_images()
    levels = np.asarray(spectrogram.get_array()).mean(axis=1)
    loudest = levels.argmax() * 16000 / 1024
    assert min(abs(loudest - 440), abs(loudest - 880)) < 16000 / 1024
    pixels = matplotlib.image.imread(tmp_path / "x.png")
    assert pixels.shape[1] == 1100
    assert pixels[..., :3].std() > 0.1


@pytest.mark.parametrize("feature", ["audio", "loudness"])
def test_a_native_shard_alone_is_drawn_as_far_as_it_goes(
    feature: str, folder: DatasetDir, tmp_path: Path
) -> None:
    lone = tmp_path / "shard.h5"
    shutil.copy(folder.native(feature) / "train-00000.h5", lone)
    scene = read_scene(lone)
    assert (scene.audio is not None, scene.labels) == (feature == "audio", None)
    line = ["inspect", str(lone), "--plot", str(tmp_path / "x.png")]
    assert CliRunner().invoke(prep, line).exit_code == 0
    assert matplotlib.image.imread(tmp_path / "x.png").shape[1] == 1100


def test_a_shard_at_the_root_of_the_disk_has_nothing_beside_it(
    folder: DatasetDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "absolute", lambda self: Path("/") / self.name)
    assert read_scene(folder.native("loudness") / "train-00000.h5").audio is None


@pytest.mark.parametrize("content", [b"junk", None])
@pytest.mark.parametrize("plot", [True, False])
def test_what_is_no_shard_is_said_to_be_none(
    content: bytes | None, plot: bool, tmp_path: Path
) -> None:
    path, words = tmp_path / "junk", "no shard (*.h5) here or below"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
        words = "not a readable HDF5 file"
    line = ["inspect", str(path), *(["--plot", str(tmp_path / "x.png")] if plot else [])]
    done = CliRunner().invoke(prep, line)
    assert done.exit_code == 1
    assert f"{path}: {words}" in done.output


def test_a_clip_that_is_not_there_is_named(folder: DatasetDir, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    line = ["inspect", str(folder.path / "native"), "--clip", "nobody"]
    done = CliRunner().invoke(prep, [*line, "--plot", str(picture)])
    assert done.exit_code == 1
    assert "no clip 'nobody' in 2 shards" in done.output
    assert not picture.exists()
    assert CliRunner().invoke(prep, line).exit_code == 2
