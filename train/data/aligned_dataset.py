"""A torch dataset of aligned shards for other training loops."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from featreg.datasets.base import SPLITS, FeatregError, Task, UsageError

from .aligned_set import AlignedSet, Clips
from .clip_reader import ClipReader
from .crops import Cutter, crop_start


class AlignedDataset(Dataset[dict[str, Any]]):
    """The clips of a folder of aligned shards, as a map-style torch dataset.

    ``dataset[i]`` is a dict of one clip or crop:

    - ``audio``: shape (samples,), float32 in [-1, 1]
    - ``features``: shape (frames, B_F), float32; all features concatenated, over the same time
    - ``label``: shape (classes,), float32; 1 where the class is present, else 0
    - ``label_mask``: shape (classes,), float32; 0 where nobody annotated the class
    - ``clip_id``: str

    It works in a ``DataLoader`` with any number of workers, started by fork or spawn. With
    `crop_s`, all items have equal lengths, so that the default collate function applies; a
    clip shorter than the crop is repeated from its start. Without `crop_s`, items are whole
    clips.

    Clips of the split ``train`` give random crops: the n-th access to clip i since
    ``set_epoch(n0)`` reads the crop that is determined by (seed, n0 + n, i), whichever worker
    reads it. Clips of other splits give the crop from their middle. All crops start at the
    border of a frame.

    Parameters
    ----------
    folder
        A folder of aligned shards, as `prep align` writes it, or a folder above it that
        contains one aligned set only (a dataset's folder, or the working folder).
    split
        ``train``, ``valid`` or ``test``; None for all clips.
    crop_s
        Length of a crop in seconds, a whole number of frames; None for whole clips.
    fold
        Fold or folds of the clips to keep; None for all clips.
    seed
        Seed of the random crops.
    features
        Names of the features to read, in the order of concatenation; None for all features,
        () for audio only.
    random_crop
        Whether crops are random (True) or from the middle (False), whatever the split.

    Attributes
    ----------
    classes : tuple of str
        Names of the classes, in the order of the labels.
    task : str
        ``multi-label`` or ``single-label``.
    resolution_s : float
        Seconds per frame.
    sample_rate : int
        Samples of audio per second.
    features : dict of str to int
        Names and dimensions of the features in their order. To separate the features:
        ``item["features"].split(list(dataset.features.values()), dim=-1)``.

    Raises
    ------
    UsageError
        If an argument is invalid for the shards, or `folder` contains several aligned sets.
    FeatregError
        If there are no shards or no clips; on access, if a shard is damaged.

    Examples
    --------
    >>> data = AlignedDataset("featreg-work/mtat", split="train", crop_s=5.0)
    >>> for batch in DataLoader(data, batch_size=16, shuffle=True, num_workers=2):
    ...     batch["audio"].shape, batch["features"].shape
    (torch.Size([16, 80000]), torch.Size([16, 50, 640]))
    """

    def __init__(
        self,
        folder: str | Path,
        split: str | None = None,
        crop_s: float | None = None,
        fold: int | Sequence[int] | None = None,
        seed: int = 0,
        *,
        features: Sequence[str] | None = None,
        random_crop: bool | None = None,
    ) -> None:
        aligned = AlignedSet(_aligned_folder(Path(folder)))
        names = tuple(aligned.header.features) if features is None else tuple(features)
        self.features = aligned.dims(aligned.features(names) if names else ())
        self.classes = aligned.header.classes
        self.task: Task = aligned.task
        self.resolution_s, self.sample_rate = aligned.header.resolution_s, aligned.header.audio_rate
        self._clips = clips = _choose_clips(aligned, split, fold)
        self._reader = ClipReader(clips, self.features)
        self._cutter: Cutter | None = None
        if crop_s is not None:
            if not (math.isfinite(crop_s) and crop_s > 0):
                raise UsageError(f"crop_s={crop_s}: expected a positive number of seconds, or None")
            samples = round(crop_s * self.sample_rate)
            self._cutter = Cutter(aligned, clips, tuple(self.features), samples)
            self._reader = self._cutter.reader
        train = clips.split == "train"
        self._random = train if random_crop is None else np.full(len(clips), random_crop)
        self._seed = seed
        # In shared memory, where all worker processes count accesses.
        self._accesses = torch.zeros(len(clips), dtype=torch.int64)
        self._accesses.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = range(len(self))[operator.index(index)]  # raises IndexError beyond the end
        if self._cutter is None:
            audio, features = self._whole(clip)
        else:
            audio, features = self._crop(self._cutter, clip)
        return {
            "audio": audio,
            "features": features,
            "label": torch.from_numpy(self._clips.label[clip].astype(np.float32)),
            "label_mask": torch.from_numpy(self._clips.label_mask[clip].astype(np.float32)),
            "clip_id": str(self._clips.clip_id[clip]),
        }

    def set_epoch(self, epoch: int) -> None:
        """Set the number of accesses of every clip to `epoch`, for resuming or in DDP."""
        self._accesses.fill_(epoch)

    def _whole(self, clip: int) -> tuple[Tensor, Tensor]:
        clips = self._clips
        samples, frames = (int(np.diff(ends[clip])[0]) for ends in (clips.audio, clips.frames))
        audio = self._reader.audio(clip, 0, samples)
        return torch.from_numpy(audio), torch.from_numpy(self._reader.frames(clip, 0, frames))

    def _crop(self, cutter: Cutter, clip: int) -> tuple[Tensor, Tensor]:
        if self._random[clip]:
            start = crop_start(cutter, self._seed, int(self._accesses[clip]), clip)
            self._accesses[clip] += 1
        else:
            borders = cutter.spare(clip) // cutter.frame_samples
            start = borders // 2 * cutter.frame_samples
        audio = torch.empty(cutter.samples)
        features = torch.empty(cutter.frames, cutter.reader.dim)
        cutter.cut(clip, start, audio.numpy(), features.numpy())
        return audio, features


def _aligned_folder(folder: Path) -> Path:
    """Return the only folder of aligned shards at `folder` or below it."""
    if any(folder.glob("*.h5")):
        return folder
    shards = [path for pattern in ("", "*/") for path in folder.glob(f"{pattern}aligned/*/*.h5")]
    found = sorted({path.parent for path in shards})
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise UsageError(f"{folder}: contains several aligned sets ({names}); give one of them")
    return found[0] if found else folder


def _choose_clips(
    aligned: AlignedSet, split: str | None, fold: int | Sequence[int] | None
) -> Clips:
    if split is not None and split not in SPLITS:
        raise UsageError(f"split={split!r}: expected one of {', '.join(SPLITS)}, or None")
    clips = aligned.clips if split is None else aligned.split(split)
    if fold is not None:
        wanted = np.atleast_1d(fold).tolist()
        there = sorted(set(clips.fold.tolist()) - {-1})
        clips = clips.take(np.isin(clips.fold, wanted))
        if not len(clips):
            raise FeatregError(
                f"{aligned.folder}: no clips in fold {', '.join(map(str, wanted))}; "
                + (
                    f"its folds are {', '.join(map(str, there))}"
                    if there
                    else "its clips have no folds"
                )
            )
    return clips
