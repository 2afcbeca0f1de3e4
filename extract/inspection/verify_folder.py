"""Whether a dataset's folder has what its clip list says: shards and clips that are gone.

Each shard may be whole and its neighbour deleted. Where one clip should be, the others
say: a run goes through the clips of a split in the list's order, so that only the last
ones may lack rows (``--limit``, or a run that was never made). Whatever else lacks rows
must have failed, by its shard or by ``failures.csv``.

A feature with a damaged shard is not held to the list: who was in it, nobody knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featreg.datasets.base import SPLITS, FeatregError
from featreg.datasets.shards.workdir import DatasetDir, shard_name

from ..extractors.registry import AUDIO
from .contents import AlignedContents, NativeContents, annotation, read_contents
from .verify import faults

Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Checked:
    """What is wrong with a shard, a line each; and what it holds, if nothing is."""

    faults: list[str]
    contents: NativeContents | AlignedContents | None


def check_shard(path: Path) -> Checked:
    """The faults of the shard at `path`, as `verify.faults` finds them, and its contents."""
    found = faults(path)
    return Checked(found, None if found else read_contents(path))


def folder_of(shard: Path, folders: Mapping[Path, FolderCheck]) -> FolderCheck | None:
    """The check that a shard belongs to; None if its dataset's folder is none of `folders`."""
    path = _dataset_path(shard)
    return None if path is None else folders.get(path)


def _dataset_path(shard: Path) -> Path | None:
    if len(shard.parents) < 3 or shard.parents[1].name not in ("native", "aligned"):
        return None
    return shard.parents[2]


def open_folders(path: Path, shards: Iterable[Path]) -> tuple[dict[Path, FolderCheck], list[str]]:
    """A check for each dataset whose folder is `path` or lies below it, and holds `shards`.

    Where only a part of a dataset's shards is looked at, nothing is known of the others.

    Returns
    -------
    The checks by folder, and what is wrong with clip lists that cannot be read.
    """
    found: dict[Path, FolderCheck] = {}
    unreadable = []
    for folder in sorted({each for shard in shards if (each := _dataset_path(shard)) is not None}):
        if path not in (folder, *folder.parents) or not DatasetDir(folder).clips_csv.is_file():
            continue
        try:
            found[folder] = FolderCheck(DatasetDir(folder))
        except FeatregError as error:
            unreadable.append(str(error))
    return found, unreadable


@dataclass(slots=True, eq=False)
class _Feature:
    """What the native shards of a feature hold, of the n clips in the list.

    `shard_of` has shape (n,): the place in `shards` of the one with the clip's rows, or -1.
    `failed` has shape (n,). `damaged` says that there are shards of which nothing is known.
    """

    shard_of: npt.NDArray[np.int32]
    failed: Mask
    shards: list[Path] = field(default_factory=list)
    damaged: bool = False

    @property
    def present(self) -> Mask:
        return self.shard_of >= 0


@dataclass(slots=True, eq=False)
class _Aligned:
    """What the shards of an aligned set hold, and what to do if they should hold other.

    `present` has shape (n,). `damaged` says that there are shards of which nothing is known.
    """

    present: Mask
    features: tuple[str, ...] = ()
    again: str = ""
    damaged: bool = False


class FolderCheck:
    """Holds the shards of a dataset against its clip list and ``failures.csv``.

    Every shard is added once, in any order. Of each clip an entry in a dictionary is kept,
    and some bytes for every feature.

    Raises
    ------
    FeatregError
        If clip list, ``dataset.json`` or ``failures.csv`` are not as they were written.
    """

    def __init__(self, folder: DatasetDir) -> None:
        self._folder = folder
        self._name = folder.path.absolute().name
        self._classes = folder.read_classes()
        self._place: dict[str, int] = {}
        splits: list[npt.NDArray[np.str_]] = [np.empty(0, "<U5")]
        hashes: list[npt.NDArray[np.uint64]] = [np.empty(0, np.uint64)]
        for block in folder.clip_blocks():
            first = len(self._place)
            self._place.update((key, first + k) for k, key in enumerate(block.clip_id))
            splits.append(np.array(block.split, "<U5"))
            hashes.append(annotation(block.split, block.label, block.label_mask))
        self._split, self._annotation = np.concatenate(splits), np.concatenate(hashes)
        # Less those that a shard tells: there remain the clips of shards that failed whole.
        self._failures = folder.read_failures()
        self._features: dict[str, _Feature] = {}
        self._aligned: dict[str, _Aligned] = {}
        self._found: list[str] = []

    def add(self, path: Path, contents: NativeContents | AlignedContents | None) -> None:
        """A shard of this folder, with what `check_shard` says that it holds."""
        name = path.parent.name
        if path.parents[1].name == "native":
            feature = self._features[name] = self._feature(name)
            if isinstance(contents, NativeContents):
                self._add_native(path, contents, feature)
            else:
                feature.damaged = True
        else:
            if name not in self._aligned:
                self._aligned[name] = _Aligned(np.zeros(len(self._place), bool))
            known = self._aligned[name]
            if isinstance(contents, AlignedContents):
                self._add_aligned(path, contents, known)
            else:
                known.damaged = True

    def _feature(self, name: str) -> _Feature:
        """What is known of a feature's shards; an empty one where there are none."""
        if name in self._features:
            return self._features[name]
        count = len(self._place)
        return _Feature(np.full(count, -1, np.int32), np.zeros(count, bool))

    def _places(self, clip_ids: Iterable[str]) -> Positions:
        """Where clips stand in the list; -1 for those that do not."""
        return np.array([self._place.get(clip_id, -1) for clip_id in clip_ids], np.int64)

    def _add_native(self, path: Path, contents: NativeContents, feature: _Feature) -> None:
        places = self._places(contents.clip_ids)
        tidy = f"{self._extract(path.parent.name)}, without --split and --limit: it tidies up"
        self._add_strangers(path, contents.clip_ids, places, tidy)
        places = places[places >= 0]
        if len(twice := places[feature.shard_of[places] >= 0]):
            other = feature.shards[feature.shard_of[twice[0]]]
            # Which of the two came first is chance.
            one, two = sorted((path, other))
            self._found.append(f"{one}: also in {two.name}: {self._clips(twice)}; {tidy}")
        feature.shard_of[places] = len(feature.shards)
        feature.shards.append(path)
        failed = self._places(clip_id for clip_id, _, _ in contents.failed)
        feature.failed[failed[failed >= 0]] = True
        self._failures.difference_update(contents.failed)

    def _add_aligned(self, path: Path, contents: AlignedContents, known: _Aligned) -> None:
        known.features = contents.features
        known.again = f"run `prep align --dataset {self._name} {contents.options}` again"
        places, again = self._places(contents.clip_ids), known.again
        self._add_strangers(path, contents.clip_ids, places, again)
        if contents.classes != self._classes:
            self._found.append(
                f"{path}: its classes are not those of {self._folder.dataset_json}; {again}"
            )
        else:
            here = places >= 0
            other = contents.annotation[here] != self._annotation[places[here]]
            if other.any():
                self._found.append(
                    f"{path}: split or labels are not those of {self._folder.clips_csv}: "
                    f"{self._clips(places[here][other])}; {again}"
                )
        known.present[places[places >= 0]] = True

    def faults(self) -> list[str]:
        """What is wrong with the folder, a line each, once every shard was added."""
        # Audio of which no shard is left, too: whatever has rows was heard.
        features = dict.fromkeys([*self._features, AUDIO] if self._features else [])
        return [
            *self._found,
            *(fault for name in features for fault in self._native_faults(name)),
            *(fault for name in self._aligned for fault in self._aligned_faults(name)),
        ]

    def lines(self) -> list[str]:
        """For each feature and aligned set, how many clips have rows."""
        total, lines = len(self._place), []
        asked = self._folder.feature_order()
        for name in [*asked, *sorted(self._features.keys() - asked)]:
            feature = self._feature(name)
            there = np.count_nonzero(feature.present)
            failed = np.count_nonzero(self._told(feature) & ~feature.present)
            lines.append(
                f"{self._name}: {name}: {there:,} clips with rows, {failed:,} failed, "
                f"{total - there - failed:,} lacking, of {total:,}{_as_far(feature.damaged)}"
            )
        for name, known in sorted(self._aligned.items()):
            there = np.count_nonzero(known.present)
            lines.append(
                f"{self._name}: aligned {name}: {there:,} clips of {total:,}"
                f"{_as_far(known.damaged)}"
            )
        return lines

    def _native_faults(self, name: str) -> Iterator[str]:
        feature, path = self._feature(name), self._folder.native(name)
        told = self._told(feature)
        gaps = _gaps(path)
        lacking = [] if feature.damaged else list(self._lacking(name, feature.present | told))
        missing = f" ({', '.join(gaps)} missing)" if gaps else ""
        for mask, reason in lacking:
            yield (
                f"{path}: no rows of {self._clips(np.flatnonzero(mask))}{missing}, {reason}, "
                f"and {self._folder.failures_csv.name} does not say why; {self._extract(name)}"
            )
        # A shard that failed whole was not written, and its clips are in failures.csv.
        if gaps and not lacking and not (told & ~feature.failed).any():
            yield f"{path}: {', '.join(gaps)} missing, later ones are there; {self._extract(name)}"

    def _lacking(self, name: str, settled: Mask) -> Iterator[tuple[Mask, str]]:
        """Clips that are not settled though they should be, and what says that they should."""
        feature = self._feature(name)
        there = feature.present | feature.failed
        wanted = [(self._up_to_last(there), "though later ones of the split are there")]
        if name == AUDIO:
            wanted += [
                (other.present, f"though {key} has them")
                for key, other in sorted(self._features.items())
                if key != name
            ]
        wanted += [
            (known.present, f"though aligned/{key} has them")
            for key, known in sorted(self._aligned.items())
            if name in (AUDIO, *known.features)
        ]
        for mask, reason in wanted:
            found = mask & ~settled
            if found.any():
                yield found, reason
            settled = settled | mask

    def _aligned_faults(self, name: str) -> Iterator[str]:
        known, path = self._aligned[name], self._folder.aligned(name)
        gaps = _gaps(path)
        sources = [self._features.get(each) for each in (AUDIO, *known.features)]
        # Native shards that were removed once all was aligned are no fault.
        whole = [each.present for each in sources if each is not None and not each.damaged]
        absent = np.zeros(len(self._place), bool)
        if not known.damaged and len(whole) == len(sources):
            absent = np.logical_and.reduce(whole) & ~known.present
        missing = f" ({', '.join(gaps)} missing)" if gaps else ""
        if absent.any():
            yield (
                f"{path}: lacks {self._clips(np.flatnonzero(absent))}{missing}, with rows of "
                f"every feature; {known.again}"
            )
        elif gaps:
            again = known.again or "run `prep align` again"
            yield f"{path}: {', '.join(gaps)} missing, later ones are there; {again}"

    def _told(self, feature: _Feature) -> Mask:
        """Clips whose failure is on record, by the feature's shards or in ``failures.csv``."""
        told: Mask = feature.failed.copy()
        places = self._places(clip_id for clip_id, _, _ in self._failures)
        told[places[places >= 0]] = True
        return told

    def _up_to_last(self, there: Mask) -> Mask:
        """Clips that one of their split comes after, of those that are there."""
        before = np.zeros(len(there), bool)
        for split in SPLITS:
            members = np.flatnonzero(self._split == split)
            seen = np.flatnonzero(there[members])
            if len(seen):
                before[members[: seen[-1]]] = True
        return before

    def _add_strangers(
        self, path: Path, clip_ids: Sequence[str], places: Positions, remedy: str
    ) -> None:
        """A fault, if some of a shard's clips are not in the list."""
        strangers = [clip_ids[k] for k in np.flatnonzero(places < 0).tolist()]
        if strangers:
            clips = _clips(strangers[0], len(strangers))
            self._found.append(f"{path}: not in {self._folder.clips_csv}: {clips}; {remedy}")

    def _clips(self, places: Positions) -> str:
        """The first of these clips, in the order of the list, and how many they are."""
        return _clips(next(islice(self._place, int(places.min()), None)), len(places))

    def _extract(self, feature: str) -> str:
        return f"run `prep extract --dataset {self._name} --features {feature} ...` again"


def _clips(first: str, count: int) -> str:
    return f"clip {first}" if count == 1 else f"{count:,} clips, {first} among them"


def _as_far(damaged: bool) -> str:
    return ", not counting damaged shards" if damaged else ""


def _gaps(folder: Path) -> list[str]:
    """Names of the shards that are not in a folder, though later ones of their split are."""
    there: dict[str, set[int]] = {}
    for path in folder.glob("*.h5"):
        if named := re.fullmatch(r"(\w+)-(\d+)", path.stem):
            there.setdefault(named[1], set()).add(int(named[2]))
    return [
        shard_name(split, index)
        for split, numbers in sorted(there.items())
        for index in range(max(numbers))
        if index not in numbers
    ]
