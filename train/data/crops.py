"""Training crops and evaluation chunks: audio and feature frames over the same time.

Every crop is a function of (seed, epoch, clip) alone: it does not depend on the thread or
process that reads it, or on whether the run was resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featreg.datasets.base import UsageError

from .aligned_set import AlignedSet, Clips
from .clip_reader import ClipReader
from .prefetch import Prefetcher
from .unlabelled import Key, UnlabelledCycle

Array = npt.NDArray[np.float32]


class Batch(NamedTuple):
    """A batch of training crops, or of evaluation chunks.

    In evaluation, `audio` and `features` have the chunks as an additional second axis.

    Attributes
    ----------
    audio
        Audio in [-1, 1], of shape (batch, samples).
    features
        Features over the same time, of shape (batch, frames, B_F); B_F is 0 without features.
    label, label_mask
        Labels and label mask, 0 or 1, of shape (batch, classes), float32.
    clip
        Indices of the clips, of shape (batch,), int64.
    """

    audio: Tensor
    features: Tensor
    label: Tensor
    label_mask: Tensor
    clip: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """Standardization ``(v - mean) / std`` of features; `mean` and `std` have shape (B_F,)."""

    mean: Array
    std: Array

    def centering(self) -> Scaling:
        """Return the scaling that only subtracts the mean."""
        return Scaling(self.mean, np.ones_like(self.std))

    @classmethod
    def of(cls, reader: ClipReader) -> Scaling:
        """Compute the statistics of all frames of `reader`; std is 1 for constant dimensions."""
        count, total, squares = 0, np.float64(0), np.float64(0)
        shift = reader.frames(0, 0, 1)[0].astype(np.float64)  # avoids cancellation in the squares
        for frames in reader:
            shifted = frames.astype(np.float64) - shift
            count += len(frames)
            total = total + shifted.sum(axis=0)
            squares = squares + (shifted**2).sum(axis=0)
        mean = np.asarray(total) / count
        std = np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, 0))
        std[std < 1e-6 * np.abs(mean + shift) + 1e-12] = 1
        return cls((mean + shift).astype(np.float32), std.astype(np.float32))


class Cutter:
    """Reader of excerpts of one length: audio and frames over the same time.

    A clip shorter than the excerpt is repeated from its start, audio and frames alike, rather
    than padded with silence. (The paper's clips have 29 s in MagnaTagATune and 10 s in DCASE
    2017, of which one in five is shorter.)

    Parameters
    ----------
    aligned
        The aligned set that contains the clips.
    clips
        The clips.
    features
        Names of the features to read; may be empty.
    samples
        Length of an excerpt in samples; a whole number of frames.
    scaling
        Standardization of the frames; None for none.

    Raises
    ------
    UsageError
        If `samples` is not a positive whole number of frames.
    """

    def __init__(
        self,
        aligned: AlignedSet,
        clips: Clips,
        features: tuple[str, ...],
        samples: int,
        scaling: Scaling | None = None,
    ) -> None:
        self.reader = ClipReader(clips, aligned.dims(features))
        self.samples = samples
        self.frame_samples = aligned.frame_samples
        self.frames = samples // self.frame_samples
        if samples <= 0 or samples % self.frame_samples:
            rate = aligned.header.audio_rate
            whole = max(1, self.frames) * self.frame_samples / rate
            raise UsageError(
                f"crop of {samples / rate:g} s (--crop): expected a multiple of "
                f"{aligned.header.resolution_s:g} s, the hop of the frames in {aligned.folder}, "
                f"such as {whole:g} s"
            )
        self._scaling = scaling

    def spare(self, clip: int) -> int:
        """Return the last sample at which an excerpt of the clip can start."""
        first, last = self.reader.clips.audio[clip]
        return max(0, int(last - first) - self.samples)

    def cut(self, clip: int, start: int, audio: Array, values: Array) -> None:
        """Read an excerpt into given arrays.

        Parameters
        ----------
        clip
            Index of the clip.
        start
            First sample, 0 to ``spare(clip)``. The frames start at the frame border nearest
            to it.
        audio, values
            Output arrays for the audio, of shape (samples,), and the frames, (frames, B_F).
        """
        reader = self.reader
        first, last = reader.clips.audio[clip]
        if last - first >= self.samples:
            reader.audio_into(clip, start, audio)
            reader.frames_into(clip, round(start / self.frame_samples), values)
        else:
            first, last = reader.clips.frames[clip]
            total = int(last - first)
            whole = reader.audio(clip, 0, total * self.frame_samples)
            audio[:] = repeated(whole, self.samples, total * self.frame_samples)
            values[:] = reader.frames(clip, 0, total)[np.arange(self.frames) % total]
        if self._scaling is not None and reader.dim:
            values -= self._scaling.mean
            values /= self._scaling.std

    def batch(self, excerpts: Sequence[tuple[int, Sequence[int]]], pin: bool) -> Batch:
        """Return excerpts of several clips, with audio of shape (clips, excerpts, samples).

        Parameters
        ----------
        excerpts
            Pairs of a clip's index and the first samples of its excerpts; all clips have
            equally many excerpts.
        pin
            Whether to use pinned memory, from which a GPU copies asynchronously.
        """
        shape = len(excerpts), len(excerpts[0][1])
        audio = torch.empty(*shape, self.samples, pin_memory=pin)
        values = torch.empty(*shape, self.frames, self.reader.dim, pin_memory=pin)
        for (clip, starts), *outputs in zip(excerpts, audio.numpy(), values.numpy(), strict=True):
            for start, *output in zip(starts, *outputs, strict=True):
                self.cut(clip, start, *output)
        clips, chosen = self.reader.clips, [clip for clip, _ in excerpts]
        return Batch(
            audio,
            values,
            torch.from_numpy(clips.label[chosen].astype(np.float32)),
            torch.from_numpy(clips.label_mask[chosen].astype(np.float32)),
            torch.tensor(chosen),
        )


def repeated(audio: Array, samples: int, period: int) -> Array:
    """Zero-pad audio to `period` samples and repeat it to `samples` samples."""
    return np.resize(np.pad(audio, (0, period - len(audio))), samples)


def chunk_starts(spare: int, frame_samples: int, chunks: int) -> list[int]:
    """Return the first samples of evenly spaced chunks.

    Parameters
    ----------
    spare
        Last sample at which a chunk can start, which is where the last chunk starts.
    frame_samples
        Hop of the frames in samples; all other chunks start at multiples of it.
    chunks
        Number of chunks.
    """
    frames = np.linspace(0, spare / frame_samples, chunks)[:-1]
    return [*(int(frame) * frame_samples for frame in frames), spare]


class Crops:
    """Random crops, one per clip and epoch, that start at frame borders.

    The key of a crop is (epoch, index of the clip); for unlabelled clips, the pass over them
    replaces the epoch. `augment` returns the augmented batch for a batch and its keys.
    """

    def __init__(
        self,
        cutter: Cutter,
        seed: int,
        augment: Callable[..., Batch] | None = None,
    ) -> None:
        self._cutter, self._seed, self._augment = cutter, seed, augment

    def batch(self, keys: Sequence[Key], pin: bool = False) -> Batch:
        """Return the crops with these keys; see `Cutter.batch`."""
        cutter = self._cutter
        batch = cutter.batch(
            [(clip, [crop_start(cutter, self._seed, epoch, clip)]) for epoch, clip in keys], pin
        )
        batch = batch._replace(audio=batch.audio[:, 0], features=batch.features[:, 0])
        return self._augment(batch, keys) if self._augment else batch


def crop_start(cutter: Cutter, seed: int, epoch: int, clip: int) -> int:
    """Return the first sample, at a frame border, of the random crop of a clip in an epoch."""
    borders = cutter.spare(clip) // cutter.frame_samples + 1
    rng = np.random.default_rng((seed, 1, epoch, clip))
    return int(rng.integers(borders)) * cutter.frame_samples


class Chunks:
    """Evenly spaced chunks of each clip, the last of which ends with the clip.

    All others start at frame borders. Audio has shape (clips, chunks, samples), features have
    shape (clips, chunks, frames, B_F).
    """

    def __init__(self, cutter: Cutter, chunks: int) -> None:
        self._cutter, self._chunks = cutter, chunks

    def starts(self, clip: int) -> list[int]:
        """Return the first samples of a clip's chunks."""
        return chunk_starts(self._cutter.spare(clip), self._cutter.frame_samples, self._chunks)

    def batch(self, clips: Sequence[int], pin: bool = False) -> Batch:
        """Return the chunks of these clips; see `Cutter.batch`."""
        return self._cutter.batch([(clip, self.starts(clip)) for clip in clips], pin)

    def __len__(self) -> int:
        return len(self._cutter.reader.clips)


class EpochOrder:
    """Random order of the labelled clips of an epoch, in batches that differ by at most one clip.

    An epoch is one pass over these clips, or several if one has fewer than `least_batches` batches.

    A short last batch would give its clips more weight, and batch normalization fails on a
    single clip; distributing the remainder over all batches avoids both.

    Parameters
    ----------
    clips
        Number of labelled clips, which are the first training clips.
    batch_size
        Maximum number of these clips per batch and device (one more if a single clip would be
        left).
    seed
        Seed of the order, together with the epoch.
    rank, world
        Index of this device and number of devices, which share each batch.
    unlabelled
        Unlabelled clips that follow the labelled ones of each batch; None for none.
    least_batches
        Minimum number of batches of an epoch.

    Attributes
    ----------
    epoch
        The current epoch.
    done
        Number of batches to skip at the start, to resume an interrupted epoch.

    Raises
    ------
    UsageError
        If there are fewer than two clips for each device.
    """

    def __init__(
        self,
        clips: int,
        batch_size: int,
        seed: int,
        rank: int,
        world: int,
        unlabelled: UnlabelledCycle | None = None,
        least_batches: int = 0,
    ) -> None:
        if clips < 2 * world:
            raise UsageError(
                f"training clips: {clips}, devices: {world}; batch normalization needs at least 2 "
                "clips per device; use a larger --fraction or --label-fraction, or fewer --devices"
            )
        self._clips, self._seed, self._unlabelled = clips, seed, unlabelled
        self._batches = min(-(-clips // (batch_size * world)), clips // (2 * world))
        self._passes = max(1, -(-least_batches // self._batches))
        self._rank, self._world = rank, world
        self._order: tuple[int, list[npt.NDArray[np.int64]]] = (-1, [])
        self.epoch = self.done = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.done, len(self)):
            number, place = divmod(self.epoch * len(self) + step, self._batches)
            own = self._batch(number, place)[self._rank :: self._world]
            keys = [(number, int(clip)) for clip in own]
            if self._unlabelled is not None:
                batch = number * self._batches + place
                keys += self._unlabelled.keys(batch * self._world + self._rank)
            yield keys

    def _batch(self, number: int, place: int) -> npt.NDArray[np.int64]:
        """Return the clips of a batch of a pass, over all devices."""
        if self._order[0] != number:
            rng = np.random.default_rng((self._seed, 2, number))
            self._order = number, np.array_split(rng.permutation(self._clips), self._batches)
        return self._order[1][place]

    def __len__(self) -> int:
        return self._passes * self._batches


def crop_loader(crops: Crops, order: EpochOrder, threads: int) -> Prefetcher:
    """Return a loader of batches of crops in the order of `order`."""
    return Prefetcher(crops.batch, order, threads)


def chunk_loader(chunks: Chunks, clips: Sequence[int], batch_size: int, threads: int) -> Prefetcher:
    """Return a loader of the chunks of `clips` in order, in batches of `batch_size` clips."""
    starts = range(0, len(clips), batch_size)
    return Prefetcher(chunks.batch, [clips[k : k + batch_size] for k in starts], threads)
