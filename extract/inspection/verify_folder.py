"""Whether a dataset's folder has what was asked for: asked - present - failed = nothing.

Each shard may be whole and its neighbour deleted. ``dataset.json`` says which features of which
clips were asked for, the shards say which clips they hold and which failed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from featreg.datasets.base import Clip, Dataset, FeatregError
from featreg.datasets.shards.aligned import AlignedHeader, read_index
from featreg.datasets.shards.native_index import read_native_index, shard_paths
from featreg.datasets.shards.workdir import DatasetDir, Limits, first_clips

from ..alignment.align_shards import plan_alignment
from ..extractors.registry import AUDIO


def dataset_folders(path: Path, shards: Sequence[Path]) -> list[DatasetDir]:
    """Folders of datasets, at `path` or below it, that have a clip list and some of `shards`."""
    found = {
        shard.parents[2]
        for shard in shards
        if len(shard.parents) > 2 and shard.parents[1].name in ("native", "aligned")
    }
    return [
        DatasetDir(folder)
        for folder in sorted(found)
        if path in (folder, *folder.parents) and (folder / "clips.csv").is_file()
    ]


def folder_faults(folder: DatasetDir, damaged: Collection[Path]) -> tuple[list[str], list[str]]:
    """Hold a dataset's shards against its clip list and against what was asked for.

    Parameters
    ----------
    folder
        The dataset's folder.
    damaged
        Shards that are known to be damaged: what should be in them is not missed as well.

    Returns
    -------
    What is wrong, a line each; and a line for each feature and aligned set that counts its clips.
    """
    faults: list[str] = []
    lines: list[str] = []
    try:
        dataset = folder.read_dataset()
        failed = {clip_id for clip_id, _, _ in folder.read_failures()}
        if folder.native("").is_dir():  # it may be deleted once all is aligned
            for feature, limits in folder.asked().items():
                _check_native(folder, dataset, feature, limits, failed, damaged, faults, lines)
        native_faults = bool(faults)
        for name in folder.aligned_names():
            _check_aligned(folder, dataset, name, damaged, native_faults, faults, lines)
    except FeatregError as error:
        faults.append(str(error))
    return faults, lines


def _check_native(
    folder: DatasetDir,
    dataset: Dataset,
    feature: str,
    limits: Limits,
    failed: Collection[str],
    damaged: Collection[Path],
    faults: list[str],
    lines: list[str],
) -> None:
    index = read_native_index(folder.native(feature))
    held = index.clips()
    again = f"run `prep extract --dataset {folder.name} --features {feature} ...` again"
    asked = [clip.clip_id for clip in first_clips(dataset.clips, limits)]
    bad = [
        key for key in asked if (held[key].failure is not None if key in held else key in failed)
    ]
    missing = [key for key in asked if key not in held and key not in failed]
    present = len(asked) - len(bad) - len(missing)
    gone = len(held.keys() - {clip.clip_id for clip in dataset.clips})
    lines.append(
        f"{folder.name}: {feature}: {present:,} clips present, {len(bad):,} failed, "
        f"{len(missing):,} missing, of {len(asked):,} asked for"
        + (f"; {gone:,} more are not in {folder.clips_csv.name}" if gone else "")
    )
    if missing and not any(path.parent == index.folder for path in damaged):
        faults.append(f"{index.folder}: {_clips(missing)} asked for and missing; {again}")
    if len({repr(shard.header) for shard in index.shards.values()}) > 1:
        faults.append(f"{index.folder}: shards made with different settings or weights; {again}")


def _check_aligned(
    folder: DatasetDir,
    dataset: Dataset,
    name: str,
    damaged: Collection[Path],
    native_faults: bool,
    faults: list[str],
    lines: list[str],
) -> None:
    clips = {clip.clip_id: clip for clip in dataset.clips}
    paths = [path for path in shard_paths(folder.aligned(name)) if path not in damaged]
    before, count, header = len(faults), 0, None
    for path in paths:
        index = read_index(path)
        header, count = index.header, count + len(index.clip_id)
        again = f"run `prep align --dataset {folder.name} {_options(header)}` again"
        if header.classes != dataset.classes:
            faults.append(f"{path}: its classes are not those of {folder.dataset_json}; {again}")
            continue
        unknown = [key for key in index.clip_id if key not in clips]
        other = [
            key
            for key, split, label, mask in zip(
                index.clip_id, index.split, index.label, index.label_mask, strict=True
            )
            if key in clips and not _same(clips[key], split, label, mask)
        ]
        if unknown:
            faults.append(f"{path}: {_clips(unknown)} not in {folder.clips_csv}; {again}")
        if other:
            faults.append(
                f"{path}: split or labels differ from {folder.clips_csv}: {_clips(other)}; {again}"
            )
    lines.append(f"{folder.name}: aligned {name}: {count:,} clips of {len(clips):,}")
    if header is None or native_faults or len(faults) > before:
        return
    needed = [folder.native(each) for each in (*header.features, AUDIO)]
    if any(path.parent in needed for path in damaged) or not all(map(Path.is_dir, needed)):
        return
    plan = plan_alignment(folder, tuple(header.features), header.resolution_s, header.mode)  # type: ignore[arg-type]
    old = sorted({job.target for job in plan.jobs} - {*damaged} | {*plan.stale})
    if plan.target == folder.aligned(name) and old:
        faults.append(
            f"{plan.target}: {len(old)} shards ({old[0].name} is one) are missing, or not made "
            f"from the native shards and {folder.clips_csv.name} as they are now; {again}"
        )


def _same(clip: Clip, split: str, label: np.ndarray, mask: np.ndarray) -> bool:
    return (
        clip.split == split
        and np.array_equal(clip.label, label)
        and np.array_equal(clip.label_mask, mask)
    )


def _options(header: AlignedHeader) -> str:
    mode = "" if header.mode == "repeat" else f" --mode {header.mode}"
    return f"--resolution {header.resolution_s:g} --features {','.join(header.features)}{mode}"


def _clips(clip_ids: Sequence[str]) -> str:
    if len(clip_ids) == 1:
        return f"clip {clip_ids[0]}"
    return f"{len(clip_ids):,} clips ({clip_ids[0]} is one)"
