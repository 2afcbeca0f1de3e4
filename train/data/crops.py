"""Training crops and evaluation chunks: audio and feature frames over the same time.

Every crop is a function of (seed, epoch, clip) alone: it does not depend on the thread or
process that reads it, or on whether the run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

Array = npt.NDArray[np.float32]


class Batch(NamedTuple):
    """What the loaders give; for evaluation, audio and features have a chunk axis second.

    Attributes
    ----------
    audio
        Shape (batch, samples), in [-1, 1].
    features
        Shape (batch, frames, B_F) over the same time; B_F is 0 where none are read.
    label, label_mask
        Shape (batch, classes), float32, 0 or 1.
    clip
        Shape (batch,), int64: the clips' indices.
    """

    audio: Tensor
    features: Tensor
    label: Tensor
    label_mask: Tensor
    clip: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """Shift and scale of every column: ``(v - mean) / std``, each of shape (B_F,)."""

    mean: Array
    std: Array

    @classmethod
    def of(cls, reader: ClipReader) -> Scaling:
        """Statistics of all frames that `reader` reads; a constant column keeps its scale."""
        count, total, squares = 0, np.float64(0), np.float64(0)
        shift = reader.frames(0, 0, 1)[0].astype(np.float64)  # keeps the squares small
        for frames in reader:
            centred = frames.astype(np.float64) - shift
            count += len(frames)
            total = total + centred.sum(axis=0)
            squares = squares + (centred**2).sum(axis=0)
        mean = np.asarray(total) / count
        std = np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, 0))
        std[std < 1e-6 * np.abs(mean + shift) + 1e-12] = 1
        return cls((mean + shift).astype(np.float32), std.astype(np.float32))


class Cutter:
    """Reads excerpts of one length from clips, audio and frames over the same time.

    A clip shorter than the excerpt is repeated from its start, audio and frames alike, so
    that no frame stands for silence that was not there. (The published evaluations have
    clips of 29 s, and of 10 s of which one in five is shorter.)

    Parameters
    ----------
    aligned
        Where the clips come from.
    clips
        The clips.
    features
        Names of the features to read; may be empty.
    samples
        Length of an excerpt; a whole number of frames.
    scaling
        Applied to the frames where it is given.

    Raises
    ------
    UsageError
        If `samples` is not a whole number of frames, 1 or more.
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
                f"crop of {samples / rate:g} s (--crop): expected a whole number of the frames of "
                f"{aligned.header.resolution_s:g} s in {aligned.folder}, such as {whole:g} s"
            )
        self._scaling = scaling

    def spare(self, clip: int) -> int:
        """The last sample at which an excerpt can start without reaching beyond the clip."""
        first, last = self.reader.clips.audio[clip]
        return max(0, int(last - first) - self.samples)

    def cut(self, clip: int, start: int, audio: Array, values: Array) -> None:
        """Write an excerpt into `audio`, (samples,), and `values`, (frames, B_F).

        Parameters
        ----------
        clip
            Index of the clip.
        start
            First sample, 0 to ``spare(clip)``. The frames start at the frame border nearest
            to it: at `start` itself, if that is a border.
        audio, values
            Written.
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
        """Excerpts of some clips; audio has shape (clips, excerpts of each, samples).

        Parameters
        ----------
        excerpts
            Clips, and the first samples of each clip's excerpts, equally many for all.
        pin
            Whether to use pinned memory, from which a GPU copies.
        """
        shape = len(excerpts), len(excerpts[0][1])
        audio = torch.empty(*shape, self.samples, pin_memory=pin)
        values = torch.empty(*shape, self.frames, self.reader.dim, pin_memory=pin)
        for (clip, starts), *room in zip(excerpts, audio.numpy(), values.numpy(), strict=True):
            for start, *where in zip(starts, *room, strict=True):
                self.cut(clip, start, *where)
        clips, chosen = self.reader.clips, [clip for clip, _ in excerpts]
        return Batch(
            audio,
            values,
            torch.from_numpy(clips.label[chosen].astype(np.float32)),
            torch.from_numpy(clips.label_mask[chosen].astype(np.float32)),
            torch.tensor(chosen),
        )


def repeated(audio: Array, samples: int, period: int) -> Array:
    """A short clip repeated to `samples`, with a period of `period`: zeros fill it up."""
    return np.resize(np.pad(audio, (0, period - len(audio))), samples)


def chunk_starts(spare: int, frame_samples: int, chunks: int) -> list[int]:
    """First samples of evenly spaced chunks.

    Parameters
    ----------
    spare
        The last sample at which a chunk can start; the last chunk starts there.
    frame_samples
        All others start at multiples of it.
    chunks
        Number of chunks.
    """
    frames = np.linspace(0, spare / frame_samples, chunks)[:-1]
    return [*(int(frame) * frame_samples for frame in frames), spare]


class Crops:
    """One random crop per clip and epoch, from a frame border; its key is (epoch, clip)."""

    def __init__(self, cutter: Cutter, seed: int) -> None:
        self._cutter, self._seed = cutter, seed

    def batch(self, keys: Sequence[tuple[int, int]], pin: bool = False) -> Batch:
        """The crops with these keys; see `Cutter.batch`."""
        cutter = self._cutter
        batch = cutter.batch(
            [(clip, [crop_start(cutter, self._seed, epoch, clip)]) for epoch, clip in keys], pin
        )
        return batch._replace(audio=batch.audio[:, 0], features=batch.features[:, 0])


def crop_start(cutter: Cutter, seed: int, epoch: int, clip: int) -> int:
    """First sample of the random crop of a clip in an epoch; a frame border."""
    borders = cutter.spare(clip) // cutter.frame_samples + 1
    rng = np.random.default_rng((seed, 1, epoch, clip))
    return int(rng.integers(borders)) * cutter.frame_samples


class Chunks:
    """Evenly spaced chunks of each clip; the last one ends where the clip ends.

    All but the last start at frame borders. Audio has shape (clips, chunks, samples),
    features (clips, chunks, frames, B_F).
    """

    def __init__(self, cutter: Cutter, chunks: int) -> None:
        self._cutter, self._chunks = cutter, chunks

    def starts(self, clip: int) -> list[int]:
        """First samples of a clip's chunks."""
        return chunk_starts(self._cutter.spare(clip), self._cutter.frame_samples, self._chunks)

    def batch(self, clips: Sequence[int], pin: bool = False) -> Batch:
        """The chunks of these clips; see `Cutter.batch`."""
        return self._cutter.batch([(clip, self.starts(clip)) for clip in clips], pin)

    def __len__(self) -> int:
        return len(self._cutter.reader.clips)


class EpochOrder:
    """Every clip once per epoch, in batches of equal size (give or take one clip).

    A short last batch would give its clips more weight, and batch normalisation fails on a
    single clip; spreading the remainder avoids both.

    Parameters
    ----------
    clips
        Number of clips.
    batch_size
        Most clips in a batch of one device (one more where a single clip would be left).
    seed
        With the epoch, decides the order.
    rank, world
        This device's number, and how many there are: each takes its share of a batch.

    Attributes
    ----------
    epoch
        The epoch whose order it is.
    done
        Batches to leave out at the beginning: an interrupted epoch goes on after them.

    Raises
    ------
    UsageError
        If there are fewer than two clips for each device.
    """

    def __init__(self, clips: int, batch_size: int, seed: int, rank: int, world: int) -> None:
        if clips < 2 * world:
            raise UsageError(
                f"training clips: {clips}, devices: {world}; batch normalisation needs at least 2 "
                "clips on each device; take a larger --fraction or fewer --devices"
            )
        self._clips, self._seed = clips, seed
        self._batches = min(-(-clips // (batch_size * world)), clips // (2 * world))
        self._rank, self._world = rank, world
        self.epoch = self.done = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self._seed, 2, self.epoch)).permutation(self._clips)
        for batch in np.array_split(order, self._batches)[self.done :]:
            yield [(self.epoch, int(clip)) for clip in batch[self._rank :: self._world]]

    def __len__(self) -> int:
        return self._batches


def crop_loader(crops: Crops, order: EpochOrder, threads: int) -> Prefetcher:
    """Batches of crops in the order of `order`."""
    return Prefetcher(crops.batch, order, threads)


def chunk_loader(
    chunks: Chunks, clips: Sequence[int], clips_a_batch: int, threads: int
) -> Prefetcher:
    """Batches of the chunks of the clips `clips`, in order."""
    starts = range(0, len(clips), clips_a_batch)
    return Prefetcher(chunks.batch, [clips[k : k + clips_a_batch] for k in starts], threads)
