"""Plot of a clip: spectrogram, features and labels on one time axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from featreg.datasets.base import FeatregError
from featreg.datasets.console import counted
from featreg.datasets.shards import aligned, native
from featreg.datasets.shards.hdf5 import atomic_path, find_shards, reading
from featreg.datasets.shards.native_index import read_native_index
from featreg.datasets.shards.workdir import DatasetDir

from ..extractors.registry import AUDIO
from .describe import layout_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Window and minimum hop of the spectrogram, in samples.
_WINDOW = 1024
_HOP = 256

# Maximum number of columns of an image; more would not be visible.
_COLUMNS = 2000

# A feature is drawn by this many principal components, of a sample of this many frames of a shard;
# of a native shard, whose frames are compressed, from this many clips.
_COMPONENTS = 16
_SAMPLE = 1000
_CLIPS = 16

_FLOOR_DB = -80.0


@dataclass(frozen=True, slots=True)
class Track:
    """Frames of a feature.

    Attributes
    ----------
    frames
        Principal components of the frames, scaled to unit variance over the shard; shape
        (frames, min(dim, 16)).
    begin_s, end_s
        Start of the first and end of the last frame, in seconds.
    dim
        Dimension of the feature, of which `frames` has the principal components.
    """

    frames: npt.NDArray[Any]
    begin_s: float
    end_s: float
    dim: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Content of a plot.

    Attributes
    ----------
    clip_id
        Id of the clip.
    duration_s
        Length of the clip in seconds.
    audio, rate
        Samples of shape (samples,), int16, or None without audio; sample rate in Hz.
    tracks
        Features of the clip, in order.
    labels
        1 (present), 0 (absent) or None (not annotated) for each class; None if unknown.
    """

    clip_id: str
    duration_s: float
    audio: npt.NDArray[np.int16] | None
    rate: int
    tracks: Mapping[str, Track]
    labels: Mapping[str, int | None] | None


def read_scene(path: Path, clip_id: str | None = None) -> Scene:
    """Read a clip of a shard, or of the first shard in a folder that contains it.

    Parameters
    ----------
    path
        Native or aligned shard, or a folder of shards. For a folder of several native features,
        such as ``WORK/DATASET/native``, all of these features are read.
    clip_id
        Id of the clip; None for the first.

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
    wanted = "no clip with frames" if clip_id is None else f"no clip {clip_id!r}"
    shards = counted(len(paths), "shard")
    raise FeatregError(f"{path}: {wanted} in {shards}; run `prep inspect {path}` to list them")


def _read_aligned(path: Path, clip_id: str | None) -> Scene | None:
    index = aligned.read_index(path)
    k = index.clip_id.index(clip_id) if clip_id in index.clip_id else 0
    if clip_id is not None and clip_id not in index.clip_id:
        return None
    frames = slice(*index.offset[k : k + 2].tolist())
    samples = slice(*index.audio_offset[k : k + 2].tolist())
    end_s = (frames.stop - frames.start) * index.header.resolution_s
    with h5py.File(path, "r", locking=False) as file, reading(file):
        return Scene(
            index.clip_id[k],
            float(index.duration_s[k]),
            file["audio"][samples],
            index.header.audio_rate,
            {
                name: Track(
                    _components(file[f"features/{name}"][frames], file[f"features/{name}"]),
                    0.0,
                    end_s,
                    feature["dim"],
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
        duration_s = shard.durations[found]
    # In WORK/DATASET/native/FEATURE, the audio and the other features of the same clip are in
    # sibling folders.
    own = path.absolute().parent
    folder = DatasetDir(own.parent.parent)
    sources = {own.name: path}
    shown = {each.absolute().parent for each in paths} | {own.parent / AUDIO}
    for sibling in (each for each in shown - {own} if each.parent == own.parent):
        held = read_native_index(sibling).clips().get(found)
        if held is not None and held.failure is None:
            sources[sibling.name] = held.path
    audio, rate, tracks = None, 1, {}
    order = folder.feature_order()
    for name in sorted(sources, key=lambda name: order.index(name) if name in order else 1000):
        with native.native_shard(sources[name]) as shard:
            if shard.header.feature == AUDIO:
                audio, rate = shard.stored(found)[:, 0], shard.header.sample_rate
            else:
                tracks[shard.header.feature] = _native_track(shard, found)
    labels = None
    if folder.clips_csv.is_file():
        dataset = folder.read_dataset()
        for clip in (clip for clip in dataset.clips if clip.clip_id == found):
            annotated = zip(dataset.classes, clip.label, clip.label_mask, strict=True)
            labels = {name: int(label) if mask else None for name, label, mask in annotated}
    return Scene(found, duration_s, audio, rate, tracks, labels)


def _native_track(shard: native.NativeShard, clip_id: str) -> Track:
    timing, frames = shard.header.timing, shard.values(clip_id)
    begin_s = timing.first_center_s - timing.hop_s / 2
    everything = np.concatenate([shard.values(each) for each in shard.clip_ids[:_CLIPS]])
    components = _components(frames, everything)
    return Track(components, begin_s, begin_s + len(frames) * timing.hop_s, shard.header.dim)


def _components(frames: npt.NDArray[Any], everything: Any) -> npt.NDArray[np.float32]:
    """Project frames onto the principal components of a sample of a shard's frames.

    Side by side, the dimensions of an embedding look like flat stripes: their scales differ
    widely, and few of them change within a clip.
    """
    step = -(-len(everything) // _SAMPLE)
    sample = everything[::step].astype(np.float64)
    mean = sample.mean(axis=0)
    _, singular, axes = np.linalg.svd(sample - mean, full_matrices=False)
    std = np.maximum(singular[:_COMPONENTS] / np.sqrt(len(sample)), 1e-6)
    components = (frames - mean) @ axes[:_COMPONENTS].T / std
    return np.asarray(components, np.float32)


def draw(scene: Scene, target: Path) -> None:
    """Write the plot of a clip to a PNG file."""
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
    """Draw the spectrogram in dB relative to its maximum."""
    assert scene.audio is not None
    signal = np.pad(scene.audio.astype(np.float32), (0, max(0, _WINDOW - len(scene.audio))))
    hop = max(_HOP, len(signal) // _COLUMNS)
    frames = np.lib.stride_tricks.sliding_window_view(signal, _WINDOW)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(_WINDOW))))
    level = 10 * np.log10(np.maximum(power, 1e-10) / max(float(power.max()), 1e-10))
    # Each column is drawn around the center of its window.
    begin_s = (_WINDOW - hop) / 2 / scene.rate
    extent = (begin_s, begin_s + len(level) * hop / scene.rate, 0.0, scene.rate / 2000)
    image = axis.imshow(
        level.T, origin="lower", aspect="auto", extent=extent, vmin=_FLOOR_DB, vmax=0, cmap="magma"
    )
    axis.set_ylabel("kHz")
    axis.figure.colorbar(image, ax=axis, label="dB", pad=0.01)


def _draw_track(axis: Axes, name: str, track: Track) -> None:
    """Draw the principal components of a feature, the first at the bottom."""
    step = max(1, len(track.frames) // _COLUMNS)
    count = track.frames.shape[1]
    image = axis.imshow(
        track.frames[::step].T,
        origin="lower",
        aspect="auto",
        extent=(track.begin_s, track.end_s, 0.5, count + 0.5),
        vmin=-3,
        vmax=3,
        cmap="RdBu_r",
        interpolation="nearest",
    )
    axis.set_ylabel(name)
    axis.yaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]  # MaxNLocator's
    label = f"{counted(count, 'component')}\nof {counted(track.dim, 'dimension')}"
    axis.figure.colorbar(image, ax=axis, label=label, pad=0.01)


def _draw_labels(axis: Axes, scene: Scene, present: list[str]) -> None:
    """Draw a bar for each class that is present; labels apply to the whole clip."""
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
        in_layout=False,  # there is space below the color bars
    )
