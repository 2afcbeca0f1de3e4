"""A clip as a picture: what is heard, its features and its labels on one time axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from featreg.datasets.base import FeatregError
from featreg.datasets.shards import aligned, native
from featreg.datasets.shards.hdf5 import atomic_path, find_shards, reading
from featreg.datasets.shards.native_index import read_native_index
from featreg.datasets.shards.workdir import DatasetDir

from ..extractors.registry import AUDIO
from .describe import layout_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the spectrogram: samples of a window, and from one to the next at least.
_WINDOW = 1024
_HOP = 256

# Columns of the picture beyond which nothing more can be seen.
_COLUMNS = 2000

_FLOOR_DB = -80.0

# What the values of featreg's own features are, by the setting `output` where there is one;
# nothing is known of those from outside.
_VALUES = {
    ("vggish", "pca8"): "whitened",
    ("vggish", "pca"): "whitened",
    ("vggish", "raw"): "activation",
    ("vggish", "relu"): "activation",
    ("openl3", None): "activation",
    ("musicnn", "mean_pool"): "activation",
    ("musicnn", "max_pool"): "activation",
    ("musicnn", "penultimate"): "activation",
    ("musicnn", "taggram"): "probability",
}


@dataclass(frozen=True, slots=True)
class Track:
    """The rows of a feature.

    Attributes
    ----------
    rows
        Shape (rows, dim).
    begin_s, end_s
        Seconds where the first row begins and the last one ends.
    values
        What a value is, in a word; empty where that is not known.
    """

    rows: npt.NDArray[Any]
    begin_s: float
    end_s: float
    values: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to draw of a clip.

    Attributes
    ----------
    clip_id
        Its name.
    duration_s
        Its length.
    audio, rate
        Shape (samples,), int16, and samples a second; None where there is no audio.
    tracks
        Its features, in order.
    labels
        For each class 1 (present), 0 (absent) or None (not annotated); None if unknown.
    """

    clip_id: str
    duration_s: float
    audio: npt.NDArray[np.int16] | None
    rate: int
    tracks: Mapping[str, Track]
    labels: Mapping[str, int | None] | None


def read_scene(path: Path, clip_id: str | None = None) -> Scene:
    """A clip of a shard, or of the first shard in a folder that has it.

    Parameters
    ----------
    path
        Shard, native or aligned, or a folder of them. Of native shards side by side, as in
        ``WORK/DATASET/native``, each gives its feature.
    clip_id
        Which; None for the first.

    Raises
    ------
    FeatregError
        If there is no such clip, or a shard cannot be read.
    """
    paths = find_shards(path)
    for shard in paths:
        if layout_of(shard) == aligned.FORMAT:
            scene = _read_aligned(shard, clip_id)
        else:
            scene = _read_native(shard, clip_id, paths)
        if scene is not None:
            return scene
    wanted = "no clip with rows" if clip_id is None else f"no clip {clip_id!r}"
    raise FeatregError(f"{path}: {wanted} in {len(paths)} shards; `prep inspect {path}` lists them")


def _read_aligned(path: Path, clip_id: str | None) -> Scene | None:
    index = aligned.read_index(path)
    k = index.clip_id.index(clip_id) if clip_id in index.clip_id else 0
    if clip_id is not None and clip_id not in index.clip_id:
        return None
    rows = slice(*index.offset[k : k + 2].tolist())
    samples = slice(*index.audio_offset[k : k + 2].tolist())
    end_s = (rows.stop - rows.start) * index.header.resolution_s
    with h5py.File(path, "r", locking=False) as file, reading(file):
        return Scene(
            index.clip_id[k],
            float(index.duration_s[k]),
            file["audio"][samples],
            index.header.audio_rate,
            {
                name: Track(
                    file[f"features/{name}"][rows], 0.0, end_s, _values(name, feature["settings"])
                )
                for name, feature in index.header.features.items()
            },
            {
                name: int(label) if mask else None
                for name, label, mask in zip(
                    index.header.classes, index.label[k], index.label_mask[k], strict=True
                )
            },
        )


def _read_native(path: Path, clip_id: str | None, paths: Sequence[Path]) -> Scene | None:
    with native.native_shard(path) as shard:
        if not shard.clip_ids or (clip_id is not None and clip_id not in shard.clip_ids):
            return None
        found = clip_id or shard.clip_ids[0]
        feature, duration_s = shard.header.feature, shard.durations[found]
    # In WORK/DATASET/native/FEATURE, the audio of the same clip and its other features are in
    # the folders beside this one.
    here = path.absolute().parent
    folder = DatasetDir(here.parent.parent)
    shown = {each.absolute().parent for each in paths} - {here}
    others = [_shard_with(each, found) for each in shown if each.parent == here.parent]
    tracks = _native_tracks([path, *filter(None, others)], found, folder.feature_order())
    audio, rate = None, 1
    source = path if feature == AUDIO else _shard_with(here.parent / AUDIO, found)
    if source is not None:
        with native.native_shard(source) as shard:
            audio = shard.stored(found)[:, 0]
            rate = shard.header.sample_rate
    labels = None
    if folder.clips_csv.is_file():
        dataset = folder.read_dataset()
        for clip in (clip for clip in dataset.clips if clip.clip_id == found):
            annotated = zip(dataset.classes, clip.label, clip.label_mask, strict=True)
            labels = {name: int(label) if mask else None for name, label, mask in annotated}
    return Scene(found, duration_s, audio, rate, tracks, labels)


def _shard_with(folder: Path, clip_id: str) -> Path | None:
    """The shard in a feature's folder that has frames of a clip."""
    held = read_native_index(folder).clips().get(clip_id)
    return None if held is None or held.failure is not None else held.path


def _native_tracks(paths: Sequence[Path], clip_id: str, order: Sequence[str]) -> dict[str, Track]:
    """What the shards hold of a clip but its audio, in the order in which it was asked for."""
    tracks = {}
    for path in paths:
        with native.native_shard(path) as shard:
            name, timing = shard.header.feature, shard.header.timing
            if name == AUDIO or clip_id not in shard.clip_ids:
                continue
            rows = shard.values(clip_id)
            begin_s = timing.first_center_s - timing.hop_s / 2
            end_s = begin_s + len(rows) * timing.hop_s
            tracks[name] = Track(rows, begin_s, end_s, _values(name, shard.header.settings))
    place = {name: k for k, name in enumerate(order)}
    return dict(sorted(tracks.items(), key=lambda item: place.get(item[0], len(place))))


def _values(name: str, settings: Mapping[str, Any]) -> str:
    return _VALUES.get((name, settings.get("output")), "")


def draw(scene: Scene, target: Path) -> None:
    """Write the picture of a clip to a PNG file."""
    from matplotlib.figure import Figure

    present = [name for name, label in (scene.labels or {}).items() if label]
    heights = [1.6] * ((scene.audio is not None) + len(scene.tracks))
    if scene.labels is not None:
        heights.append(0.3 + 0.2 * max(1, len(present)))
    figure = Figure(figsize=(10, 0.9 + sum(heights)), layout="constrained", dpi=110)
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    rest = iter(axes)
    if scene.audio is not None:
        _draw_spectrogram(next(rest), scene)
    for name, track in scene.tracks.items():
        _draw_track(next(rest), name, track)
    if scene.labels is not None:
        _draw_labels(next(rest), scene, present)
    axes[0].set_title(f"{scene.clip_id}, {scene.duration_s:.2f} s")
    axes[-1].set_xlabel("time (s)")
    axes[-1].set_xlim(0, scene.duration_s)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format="png")


def _draw_spectrogram(axis: Axes, scene: Scene) -> None:
    """Levels below the loudest, in dB."""
    assert scene.audio is not None
    signal = np.pad(scene.audio.astype(np.float32), (0, max(0, _WINDOW - len(scene.audio))))
    hop = max(_HOP, len(signal) // _COLUMNS)
    frames = np.lib.stride_tricks.sliding_window_view(signal, _WINDOW)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(_WINDOW))))
    level = 10 * np.log10(np.maximum(power, 1e-10) / max(float(power.max()), 1e-10))
    # Each column is drawn around the middle of its window.
    begin_s = (_WINDOW - hop) / 2 / scene.rate
    extent = (begin_s, begin_s + len(level) * hop / scene.rate, 0.0, scene.rate / 2000)
    image = axis.imshow(
        level.T, origin="lower", aspect="auto", extent=extent, vmin=_FLOOR_DB, vmax=0, cmap="magma"
    )
    axis.set_ylabel("kHz")
    axis.figure.colorbar(image, ax=axis, label="dB", pad=0.01)


def _draw_track(axis: Axes, name: str, track: Track) -> None:
    """Values as they are; the colours span all but the outermost hundredth on either side."""
    low, high = np.percentile(track.rows, [1, 99])
    step = max(1, len(track.rows) // _COLUMNS)
    image = axis.imshow(
        track.rows[::step].T.astype(np.float32),
        origin="lower",
        aspect="auto",
        extent=(track.begin_s, track.end_s, 0, track.rows.shape[1]),
        vmin=low,
        vmax=max(high, low + 1e-6),
        cmap="viridis",
        interpolation="nearest",
    )
    axis.set_ylabel(name)
    axis.yaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]  # MaxNLocator's
    label = f"{name}\n{track.values}".rstrip()
    axis.figure.colorbar(image, ax=axis, label=label, pad=0.01)


def _draw_labels(axis: Axes, scene: Scene, present: list[str]) -> None:
    """A bar for each class that is present; labels hold for the whole clip."""
    assert scene.labels is not None
    unknown = sum(label is None for label in scene.labels.values())
    for k, name in enumerate(present):
        axis.barh(k, scene.duration_s, height=0.8, color="tab:blue", alpha=0.6)
        axis.text(scene.duration_s / 2, k, name, ha="center", va="center", fontsize=8)
    words = f"{len(present)} of {len(scene.labels)}\nclasses"
    axis.set_ylabel("labels")
    axis.set_yticks([])
    axis.set_ylim(len(present) - 0.5 if present else 0.5, -0.5)
    axis.text(
        1.01,
        0.5,
        words + (f",\n{unknown} not\nannotated" if unknown else ""),
        transform=axis.transAxes,
        va="center",
        fontsize=7,
        in_layout=False,  # beside it, below the colour bars, there is room
    )
