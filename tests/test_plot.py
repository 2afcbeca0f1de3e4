"""The picture of a clip: everything on one time axis, read from native or aligned shards."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import matplotlib.image
import numpy as np
import pytest
from click.testing import CliRunner
from kit import make_dataset
from loudness import LoudnessConfig
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featreg.datasets.shards.workdir import DatasetDir
from featreg.extract.alignment.align_shards import align_shard, plan_alignment
from featreg.extract.cli.prep import prep
from featreg.extract.extractors.registry import FeatureSpec
from featreg.extract.extractors.waveform import WaveformConfig
from featreg.extract.inspection.plot_clip import _components, draw, read_scene
from featreg.extract.pipeline.dask_pool import Workers
from featreg.extract.pipeline.plan import Request, make_plan
from featreg.extract.pipeline.run import run_extraction


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


def panels(figure: Figure) -> list[Axes]:
    """The parts of a picture, without their color bars."""
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The pictures that a test draws."""
    found: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kw: (found.append(self), save(self, *args, **kw))
    )
    return found


@pytest.mark.parametrize("part", ["native/loudness", "native", "aligned"])
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
        assert (len(track.frames), track.begin_s, track.end_s) == (14, 0.0, pytest.approx(1.4))
    else:  # two rows, centered at 0.25 and 0.75 s
        assert (len(track.frames), track.begin_s, track.end_s) == (2, 0.0, 1.0)


def test_the_picture_has_one_time_axis(
    folder: DatasetDir, tmp_path: Path, drawn: list[Figure]
) -> None:
    line = ["inspect", str(folder.path / "aligned"), "--plot", str(tmp_path / "x.png")]
    done = CliRunner().invoke(prep, [*line, "--clip", "train-1"])
    assert done.exit_code == 0, done.output
    spectrogram, loudness, labels = panels(drawn[0])
    names = [axis.get_ylabel() for axis in (spectrogram, loudness, labels)]
    assert names == ["kHz", "loudness", "labels"]
    for axis in (spectrogram, loudness, labels):
        assert axis.get_xlim() == pytest.approx((0.0, 1.4), abs=1e-4)
    # One channel of the second clip is a tone of 440 Hz, the other one of 880 Hz.
    (image,) = spectrogram.get_images()
    levels = np.asarray(image.get_array()).mean(axis=1)
    loudest = levels.argmax() * 16000 / 1024
    assert min(abs(loudest - 440), abs(loudest - 880)) < 16000 / 1024
    pixels = matplotlib.image.imread(tmp_path / "x.png")
    assert pixels.shape[1] == 1100
    assert pixels[..., :3].std() > 0.1


def test_every_native_feature_of_a_clip_is_drawn_on_its_time_grid(
    folder: DatasetDir, tmp_path: Path, drawn: list[Figure]
) -> None:
    work = DatasetDir(tmp_path / "tones")
    shutil.copytree(folder.path, work.path)
    # A second feature of the same clips, asked for before the first, on a slower timing.
    shutil.copytree(work.native("loudness"), work.native("musicnn"))
    with h5py.File(work.native("musicnn") / "00000.h5", "r+") as file:
        file.attrs.update(feature="musicnn", hop_s=1.0, first_center_s=0.5)
        file.attrs["settings"] = json.dumps({"output": "taggram"})
    about = json.loads(work.dataset_json.read_text())
    work.dataset_json.write_text(json.dumps(about | {"asked": {"musicnn": {}, "loudness": {}}}))
    # And the shard of other clips, and of another dataset.
    shutil.copytree(work.native("loudness"), tmp_path / "other" / "native" / "elsewhere")

    line = ["inspect", str(work.path / "native"), "--plot", str(tmp_path / "x.png")]
    done = CliRunner().invoke(prep, [*line, "--clip", "train-1"])
    assert done.exit_code == 0, done.output
    assert [axis.get_ylabel() for axis in panels(drawn[0])] == [
        "kHz",
        "musicnn",
        "loudness",
        "labels",
    ]
    assert {axis.get_xlim() for axis in panels(drawn[0])} == {panels(drawn[0])[0].get_xlim()}
    images = [axis.get_images()[0] for axis in panels(drawn[0])[1:3]]
    assert [tuple(image.get_extent()[:2]) for image in images] == [(0.0, 2.0), (0.0, 1.0)]
    bars = [axis.get_ylabel() for axis in drawn[0].axes if axis.get_label() == "<colorbar>"]
    assert bars[0] == "dB"
    assert all("component" in bar for bar in bars[1:])
    # One shard is one feature; of a folder with two datasets, the first that has the clip.
    assert list(read_scene(work.native("loudness") / "00000.h5").tracks) == ["loudness"]
    assert list(read_scene(tmp_path, "train-1").tracks) == ["loudness"]


def test_components_have_unit_variance_and_are_uncorrelated() -> None:
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((500, 3)) @ rng.standard_normal((3, 20)) * 7 + 5
    components = _components(frames, frames)
    assert components.shape == (500, 16)
    # Three dimensions of variance; the others are noise of float64 arithmetic.
    np.testing.assert_allclose(np.cov(components[:, :3].T, bias=True), np.eye(3), atol=1e-4)


@pytest.mark.parametrize("feature", ["audio", "loudness"])
def test_a_native_shard_alone_is_drawn_as_far_as_it_goes(
    feature: str, folder: DatasetDir, tmp_path: Path
) -> None:
    lone = tmp_path / "shard.h5"
    shutil.copy(folder.native(feature) / "00000.h5", lone)
    scene = read_scene(lone)
    assert (scene.audio is not None, scene.labels) == (feature == "audio", None)
    line = ["inspect", str(lone), "--plot", str(tmp_path / "x.png")]
    assert CliRunner().invoke(prep, line).exit_code == 0
    assert matplotlib.image.imread(tmp_path / "x.png").shape[1] == 1100


def test_a_shard_at_the_root_of_the_disk_has_nothing_beside_it(
    folder: DatasetDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "absolute", lambda self: Path("/") / self.name)
    assert read_scene(folder.native("loudness") / "00000.h5").audio is None


@pytest.mark.parametrize("content", [b"junk", None])
@pytest.mark.parametrize("plot", [True, False])
def test_what_is_no_shard_is_said_to_be_none(
    content: bytes | None, plot: bool, tmp_path: Path
) -> None:
    path, words = tmp_path / "junk", "no shards (*.h5)"
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


@pytest.mark.parametrize("tracks", [True, False])
def test_all_that_is_written_lies_within_the_picture(
    folder: DatasetDir, tracks: bool, tmp_path: Path, drawn: list[Figure]
) -> None:
    scene = read_scene(folder.native("loudness"), "train-1")
    labels = {f"class {k}": 1 if k < 2 else None if k < 150 else 0 for k in range(527)}
    draw(replace(scene, labels=labels, tracks=scene.tracks if tracks else {}), tmp_path / "x.png")
    for axis in drawn[0].axes:
        for text in axis.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= drawn[0].bbox.x1
            assert box.y1 <= drawn[0].bbox.y1
