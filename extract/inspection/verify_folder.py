"""Verification of a dataset's folder: every requested clip must be present or have failed.

Even if all shards are intact, others may have been deleted. ``dataset.json`` records the requested
features and clips, and the shards record their clips and failures.
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
    """Folders of datasets in `path` and its subfolders with a clip list and some of `shards`."""
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
    """Compare the shards of a dataset with its clip list and with the requested features.

    Parameters
    ----------
    folder
        Folder of the dataset.
    damaged
        Shards that are known to be damaged; their clips are not reported as missing.

    Returns
    -------
    Errors, one line each; and one line with the number of clips per feature and aligned folder.
    """
    faults: list[str] = []
    lines: list[str] = []
    try:
        dataset = folder.read_dataset()
        failed = {clip_id for clip_id, _, _ in folder.read_failures()}
        if folder.native("").is_dir():  # may be deleted after alignment
            for feature, limits in folder.asked().items():
                found, line = _check_native(folder, dataset, feature, limits, failed, damaged)
                faults += found
                lines.append(line)
        native_faults = bool(faults)  # these make aligned shards outdated, too
        for name in folder.aligned_names():
            found, line = _check_aligned(folder, dataset, name, damaged)
            faults += found or ([] if native_faults else _stale_faults(folder, name, damaged))
            lines.append(line)
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
) -> tuple[list[str], str]:
    index = read_native_index(folder.native(feature))
    held = index.clips()
    again = f"run `prep extract --dataset {folder.name} --features {feature} ...` again"
    asked = [clip.clip_id for clip in first_clips(dataset.clips, limits)]
    bad = [
        key for key in asked if (held[key].failure is not None if key in held else key in failed)
    ]
    missing = [key for key in asked if key not in held and key not in failed]
    present = len(asked) - len(bad) - len(missing)
    removed = len(held.keys() - {clip.clip_id for clip in dataset.clips})
    faults = []
    if missing and not any(path.parent == index.folder for path in damaged):
        faults.append(f"{index.folder}: {_clips(missing)} missing; {again}")
    if len({repr(shard.header) for shard in index.shards.values()}) > 1:
        faults.append(f"{index.folder}: shards with different settings or weights; {again}")
    return faults, (
        f"{folder.name}: {feature}: {present:,} clips present, {len(bad):,} failed, "
        f"{len(missing):,} missing, of {len(asked):,} requested"
        + (f"; {removed:,} more not in {folder.clips_csv.name}" if removed else "")
    )


def _check_aligned(
    folder: DatasetDir, dataset: Dataset, name: str, damaged: Collection[Path]
) -> tuple[list[str], str]:
    clips = {clip.clip_id: clip for clip in dataset.clips}
    faults, count = [], 0
    for path in (path for path in shard_paths(folder.aligned(name)) if path not in damaged):
        index = read_index(path)
        count += len(index.clip_id)
        again = _again(folder, index.header)
        if index.header.classes != dataset.classes:
            faults.append(f"{path}: the classes differ from {folder.dataset_json}; {again}")
            continue
        rows = zip(index.clip_id, index.split, index.label, index.label_mask, strict=True)
        if unknown := [key for key in index.clip_id if key not in clips]:
            faults.append(f"{path}: {_clips(unknown)} not in {folder.clips_csv}; {again}")
        if other := [key for key, *row in rows if key in clips and not _same(clips[key], *row)]:
            faults.append(
                f"{path}: split or labels differ from {folder.clips_csv}: {_clips(other)}; {again}"
            )
    return faults, f"{folder.name}: aligned {name}: {count:,} clips of {len(clips):,}"


def _stale_faults(folder: DatasetDir, name: str, damaged: Collection[Path]) -> list[str]:
    """Errors of aligned shards that are missing or outdated."""
    intact = [path for path in shard_paths(folder.aligned(name)) if path not in damaged]
    if not intact:
        return []
    header = read_index(intact[-1]).header
    needed = [folder.native(each) for each in (*header.features, AUDIO)]
    if any(path.parent in needed for path in damaged) or not all(map(Path.is_dir, needed)):
        return []
    plan = plan_alignment(folder, tuple(header.features), header.resolution_s, header.mode)  # type: ignore[arg-type]
    old = sorted({job.target for job in plan.jobs} - {*damaged} | {*plan.stale})
    if plan.target != folder.aligned(name) or not old:
        return []
    shards = f"shard {old[0].name}"
    if len(old) > 1:
        shards = f"{len(old)} shards, such as {old[0].name},"
    newer = f"the native shards and {folder.clips_csv.name}"
    return [f"{plan.target}: {shards} missing, or older than {newer}; {_again(folder, header)}"]


def _same(clip: Clip, split: str, label: np.ndarray, mask: np.ndarray) -> bool:
    return (
        clip.split == split
        and np.array_equal(clip.label, label)
        and np.array_equal(clip.label_mask, mask)
    )


def _again(folder: DatasetDir, header: AlignedHeader) -> str:
    mode = "" if header.mode == "repeat" else f" --mode {header.mode}"
    options = f"--resolution {header.resolution_s:g} --features {','.join(header.features)}{mode}"
    return f"run `prep align --dataset {folder.name} {options}` again"


def _clips(clip_ids: Sequence[str]) -> str:
    if len(clip_ids) == 1:
        return f"clip {clip_ids[0]}"
    return f"{len(clip_ids):,} clips (such as {clip_ids[0]})"
