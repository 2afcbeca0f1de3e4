"""What `mutants.py` mutates: the functions that decide, and the tests that should notice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Target(NamedTuple):
    """Tests of a module, and the functions that are mutated; all of the module if none."""

    tests: tuple[str, ...]
    functions: tuple[str, ...] = ()


TARGETS: Mapping[str, Target] = {
    "datasets/audio/decode.py": Target(("tests/test_fingerprint.py",), ("fingerprint",)),
    "datasets/shards/native_index.py": Target(("tests/test_plan.py",)),
    "datasets/shards/workdir.py": Target(
        ("tests/test_record.py",),
        (
            "DatasetDir.asked",
            "DatasetDir.native_features",
            "DatasetDir.aligned_names",
            "DatasetDir.write_failures",
            "DatasetDir.read_failures",
            "DatasetDir.read_durations",
            "DatasetDir.write_dataset",
            "DatasetDir.read_dataset",
            "DatasetDir._read_dataset",
            "_undamaged",
            "first_clips",
            "splits_of",
            "choose",
            "choose_dataset",
        ),
    ),
    "extract/pipeline/plan.py": Target(
        ("tests/test_plan.py",),
        ("ShardJob.path", "header_of", "make_plan", "_Feature", "difference"),
    ),
    "extract/alignment/align_shards.py": Target(
        ("tests/test_align_plan.py",),
        (
            "_open_store",
            "_check_files",
            "_in_words",
            "aligned_name",
            "plan_alignment",
            "_header",
            "_make_job",
            "_is_done",
            "align_shard",
            "_aligned_parts",
            "_audio_parts",
        ),
    ),
    "extract/inspection/verify.py": Target(
        ("tests/test_shard_faults.py",),
        (
            "faults",
            "_stored_faults",
            "_blocks",
            "_offset_faults",
            "_native_faults",
            "_row_faults",
            "_aligned_faults",
        ),
    ),
    "extract/inspection/verify_folder.py": Target(("tests/test_folder_faults.py",)),
    "datasets/shards/seal.py": Target(("tests/test_shard_faults.py",)),
    "datasets/shards/contiguous.py": Target(("tests/test_shard_reader.py",)),
    "datasets/shards/reader.py": Target(("tests/test_shard_reader.py",)),
    "train/training/run_dir.py": Target(("tests/test_run_folder.py",)),
    "train/training/run_files.py": Target(
        ("tests/test_run_folder.py",),
        ("read_bytes", "read_verified", "write_json", "read_json", "_at", "_checksum"),
    ),
    "train/training/checkpoint.py": Target(("tests/test_run_folder.py",)),
    "train/experiments/select_runs.py": Target(("tests/test_select_runs.py",)),
    "train/experiments/compare.py": Target(
        ("tests/test_groups.py",),
        (
            "Result.test_set",
            "Group",
            "group",
            "_by_seed",
            "_tell_apart",
            "_marks",
            "common",
            "_key",
            "table",
            "spread",
            "spread_of",
            "deviation",
            "differences",
            "_fair",
            "_difference",
            "notes",
            "alphas",
        ),
    ),
    "train/evaluation/metrics.py": Target(("tests/test_metrics.py",)),
    "train/evaluation/bootstrap.py": Target(("tests/test_metrics.py",)),
}

_PLAN = "extract/pipeline/plan.py"

EQUIVALENT: Mapping[tuple[str, str, str], str] = {
    (_PLAN, "if filled:", "False"): "the search for a free number starts lower, and takes longer",
    (
        _PLAN,
        'self._held.update((clip.clip_id, HeldClip(path, "", 0.0)) for clip in clips)',
        "1.0",
    ): ("of the clips that will be written, only the shard is asked for"),
    **dict.fromkeys(
        [
            (
                "train/training/run_dir.py",
                'turn = {"report.json": -2, "state.pt": -1, "config.json": 1}',
                number,
            )
            for number in ("2", "3")
        ],
        "the order of the files stays",
    ),
    (
        "train/experiments/compare.py",
        "dataclasses.replace(group.config.recipe, standardize=False)  # of features",
        "True",
    ): "both recipes are compared with the same value",
}
"""File, line and change of mutants without effect, which are left out, and why."""
