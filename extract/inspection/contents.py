"""Who is in a shard: the part of it that its dataset's folder is held against."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featreg.datasets.shards import aligned, native

from .describe import layout_of


@dataclass(frozen=True, slots=True)
class NativeContents:
    """Whose rows a native shard holds, and whose failed: clip id, stage and reason."""

    clip_ids: tuple[str, ...]
    failed: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True, eq=False)
class AlignedContents:
    """Whose rows an aligned shard holds, of which features, under which labels.

    Attributes
    ----------
    clip_ids
        n clips.
    features, classes
        Names, in order.
    annotation
        What `annotation` makes of splits and labels, shape (n,).
    options
        Of the `prep align` that wrote it.
    """

    clip_ids: tuple[str, ...]
    features: tuple[str, ...]
    classes: tuple[str, ...]
    annotation: npt.NDArray[np.uint64]
    options: str


def read_contents(path: Path) -> NativeContents | AlignedContents:
    """What the shard at `path` holds; neither rows nor audio are read.

    Raises
    ------
    FeatregError
        If it is none of featreg's shards, or damaged.
    """
    if layout_of(path) == native.FORMAT:
        with native.native_shard(path) as shard:
            failed = tuple((each.clip_id, each.stage, each.reason) for each in shard.failures)
            return NativeContents(tuple(shard.clip_ids), failed)
    index = aligned.read_index(path)
    header = index.header
    return AlignedContents(
        index.clip_id,
        tuple(header.features),
        header.classes,
        annotation(index.split, index.label, index.label_mask),
        f"--resolution {header.resolution_s:g} --features {','.join(header.features)}"
        f"{'' if header.mode == 'repeat' else f' --mode {header.mode}'}",
    )


def annotation(
    splits: Sequence[str], labels: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint64]:
    """Eight bytes a clip that stand for its split and labels: equal where those are.

    Parameters
    ----------
    splits
        Of n clips.
    labels, masks
        Shape (n, classes).

    Returns
    -------
    uint64 of shape (n,): hundreds of labels of millions of clips would not fit in memory.
    """
    hashes = (
        hashlib.blake2b(split.encode() + label.tobytes() + mask.tobytes(), digest_size=8).digest()
        for split, label, mask in zip(splits, labels, masks, strict=True)
    )
    return np.frombuffer(b"".join(hashes), np.uint64)
