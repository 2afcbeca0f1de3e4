"""Training crops and evaluation chunks: audio and feature rows over the same time.

Every crop is a function of (seed, epoch, clip) alone, so that it does not matter which
thread or process cuts it, or whether the run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from featreg.datasets.base import UsageError

from .aligned_dataset import AlignedSet, ClipReader, Clips
from .prefetch import ReadAhead

Array = npt.NDArray[np.float32]


class Batch(NamedTuple):
    """What the loaders give; for evaluation, audio and features have a chunk axis second.

    Attributes
    ----------
    audio
        Shape (batch, samples), in [-1, 1].
    features
        Shape (batch, rows, B_F) over the same time; B_F is 0 where none are read.
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
        """Statistics of all rows that `reader` reads; a constant column keeps its scale."""
        count, total, squares = 0, np.float64(0), np.float64(0)
        shift = reader.frames(0, 0, 1)[0].astype(np.float64)  # keeps the squares small
        for rows in reader:
            centred = rows.astype(np.float64) - shift
            count += len(rows)
            total = total + centred.sum(axis=0)
            squares = squares + (centred**2).sum(axis=0)
        mean = np.asarray(total) / count
        std = np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, 0))
        std[std < 1e-6 * np.abs(mean + shift) + 1e-12] = 1
        return cls((mean + shift).astype(np.float32), std.astype(np.float32))


class Cutter:
    """Cuts pieces of one length out of clips, audio and rows over the same time.

    A clip shorter than the piece is repeated from its start, audio and rows alike, so
    that no row stands for silence that was not there. (The published evaluations have
    clips of 29 s, and of 10 s of which one in five is shorter.)

    Parameters
    ----------
    aligned
        Where the clips come from.
    clips
        Which of them.
    features
        Names of the features to read; may be empty.
    samples
        Length of a piece; a whole number of rows.
    scaling
        Applied to the rows where it is given.

    Raises
    ------
    UsageError
        If `samples` is not a whole number of rows.
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
        if samples % self.frame_samples:
            rate = aligned.header.audio_rate
            raise UsageError(
                f"--crop {samples / rate:g}: no whole number of the rows of "
                f"{aligned.header.resolution_s:g} s in {aligned.folder}; "
                f"{samples // self.frame_samples * self.frame_samples / rate:g} is one"
            )
        self.rows = samples // self.frame_samples
        self._scaling = scaling

    def spare(self, clip: int) -> int:
        """The last sample at which a piece can start without reaching beyond the clip."""
        first, last = self.reader.clips.audio[clip]
        return max(0, int(last - first) - self.samples)

    def cut(self, clip: int, start: int, audio: Array, values: Array) -> None:
        """Write a piece into `audio`, (samples,), and `values`, (rows, B_F).

        Parameters
        ----------
        clip
            Index of the clip.
        start
            First sample, 0 to ``spare(clip)``. The rows start at the row border nearest
            to it: at `start` itself, if that is a border.
        audio, values
            Written.
        """
        reader = self.reader
        first, last = reader.clips.audio[clip]
        if last - first >= self.samples:
            reader.audio_into(clip, start, audio)
            reader.rows_into(clip, round(start / self.frame_samples), values)
        else:
            first, last = reader.clips.rows[clip]
            total = int(last - first)
            heard = reader.audio(clip, 0, total * self.frame_samples)
            audio[:] = repeated(heard, self.samples, total * self.frame_samples)
            values[:] = reader.frames(clip, 0, total)[np.arange(self.rows) % total]
        if self._scaling is not None and self.reader.frame_dim:
            values -= self._scaling.mean
            values /= self._scaling.std

    def batch(self, pieces: Sequence[tuple[int, Sequence[int]]], pin: bool) -> Batch:
        """Pieces of some clips; audio has shape (clips, pieces of each, samples).

        Parameters
        ----------
        pieces
            Clips, and first samples of each one's pieces, equally many.
        pin
            Whether it goes to a GPU from here.
        """
        shape = len(pieces), len(pieces[0][1])
        audio = torch.empty(*shape, self.samples, pin_memory=pin)
        values = torch.empty(*shape, self.rows, self.reader.frame_dim, pin_memory=pin)
        for (clip, starts), *room in zip(pieces, audio.numpy(), values.numpy(), strict=True):
            for start, *where in zip(starts, *room, strict=True):
                self.cut(clip, start, *where)
        clips, chosen = self.reader.clips, [clip for clip, _ in pieces]
        return Batch(
            audio,
            values,
            torch.from_numpy(clips.label[chosen].astype(np.float32)),
            torch.from_numpy(clips.label_mask[chosen].astype(np.float32)),
            torch.tensor(chosen),
        )


def repeated(audio: Array, samples: int, period: int) -> Array:
    """A short clip as a piece: zeros up to `period`, and from its start again."""
    return np.resize(np.pad(audio, (0, period - len(audio))), samples)


def chunk_starts(spare: int, frame_samples: int, chunks: int) -> list[int]:
    """First samples of evenly spaced pieces.

    Parameters
    ----------
    spare
        The last sample at which a piece can start: there the last one does.
    frame_samples
        All others start at multiples of it.
    chunks
        Number of pieces.
    """
    rows = np.linspace(0, spare / frame_samples, chunks)[:-1]
    return [*(int(row) * frame_samples for row in rows), spare]


class Crops(Dataset[Batch]):
    """One random crop per clip and epoch, from a row border; its key is (epoch, clip).

    `crop_loader` reads whole batches; a `DataLoader` of torch can read it crop by crop.
    """

    def __init__(self, cutter: Cutter, seed: int) -> None:
        self._cutter, self._seed = cutter, seed

    def batch(self, keys: Sequence[tuple[int, int]], pin: bool = False) -> Batch:
        """The crops with these keys; see `Cutter.batch`."""
        batch = self._cutter.batch(
            [(clip, [self._start(epoch, clip)]) for epoch, clip in keys], pin
        )
        return batch._replace(audio=batch.audio[:, 0], features=batch.features[:, 0])

    def _start(self, epoch: int, clip: int) -> int:
        cutter = self._cutter
        borders = cutter.spare(clip) // cutter.frame_samples + 1
        row = int(np.random.default_rng((self._seed, 1, epoch, clip)).integers(borders))
        return row * cutter.frame_samples

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return Batch(*(part[0] for part in self.batch([key])))


class Chunks(Dataset[Batch]):
    """Evenly spaced pieces of each clip; the last one ends where the clip ends.

    All but the last start at row borders. Audio has shape (chunks, samples), features
    (chunks, rows, B_F). `chunk_loader` reads whole batches; a `DataLoader` of torch can
    read it clip by clip.
    """

    def __init__(self, cutter: Cutter, chunks: int) -> None:
        self._cutter, self._chunks = cutter, chunks

    def starts(self, clip: int) -> list[int]:
        """First samples of a clip's pieces."""
        return chunk_starts(self._cutter.spare(clip), self._cutter.frame_samples, self._chunks)

    def batch(self, clips: Sequence[int], pin: bool = False) -> Batch:
        """The pieces of these clips; see `Cutter.batch`."""
        return self._cutter.batch([(clip, self.starts(clip)) for clip in clips], pin)

    def __getitem__(self, clip: int) -> Batch:
        return Batch(*(part[0] for part in self.batch([clip])))

    def __len__(self) -> int:
        return len(self._cutter.reader.clips)


class EpochOrder:
    """Every clip once an epoch, in batches of equal size (give or take one clip).

    A short last batch would weigh its clips more and, of one clip, break batch norm;
    spreading the remainder avoids both.

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
        Whose order it is.
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


def crop_loader(crops: Crops, order: EpochOrder, threads: int) -> ReadAhead:
    """Batches of crops in the order of `order`."""
    return ReadAhead(crops.batch, order, threads)


def chunk_loader(
    chunks: Chunks, clips: Sequence[int], clips_a_batch: int, threads: int
) -> ReadAhead:
    """Batches of the chunks of the clips `clips`, in order."""
    starts = range(0, len(clips), clips_a_batch)
    return ReadAhead(chunks.batch, [clips[k : k + clips_a_batch] for k in starts], threads)
