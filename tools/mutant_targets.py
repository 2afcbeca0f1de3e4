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
    "datasets/shards/native_index.py": Target(("tests/test_native_index.py",)),
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
    "datasets/shards/native.py": Target(("tests/test_plan.py",), ("NativeHeader.difference",)),
    "extract/alignment/align_shards.py": Target(
        ("tests/test_align_plan.py",),
        (
            "_open_store",
            "_check_files",
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
        (
            "tests/test_shard_faults.py",
            "tests/test_verify.py::test_a_block_checksum_that_is_wrong_is_found",
        ),
        (
            "faults",
            "_stored_faults",
            "_blocks",
            "_offset_faults",
            "_native_faults",
            "_count_faults",
            "_aligned_faults",
        ),
    ),
    "extract/inspection/verify_folder.py": Target(("tests/test_folder_faults.py",)),
    "datasets/shards/seal.py": Target(("tests/test_shard_faults.py",)),
    "datasets/shards/contiguous.py": Target(("tests/test_shard_reader.py",)),
    "datasets/shards/reader.py": Target(("tests/test_shard_reader.py",)),
    "train/training/run_dir.py": Target(("tests/test_run_folder.py",)),
    "train/training/find_runs.py": Target(("tests/test_run_folder.py",)),
    "train/training/run_files.py": Target(
        ("tests/test_run_files.py",),
        ("read_bytes", "read_verified", "write_json", "read_json", "_at", "_checksum"),
    ),
    "train/training/checkpoint.py": Target(("tests/test_run_files.py",)),
    "train/experiments/select_runs.py": Target(("tests/test_select_runs.py",)),
    "train/experiments/compare.py": Target(
        ("tests/test_groups.py",),
        (
            "Result.test_set",
            "Group",
            "group",
            "_by_seed",
            "_make_labels_unique",
            "_properties",
            "common",
            "key_of",
            "table",
            "spread",
            "format_spread",
            "deviation",
        ),
    ),
    "train/experiments/differences.py": Target(("tests/test_groups.py",)),
    "train/evaluation/metrics.py": Target(("tests/test_metrics.py",)),
    "train/evaluation/bootstrap.py": Target(("tests/test_metrics.py",)),
}

EQUIVALENT: Mapping[tuple[str, str, str], str] = {
    (path, line, change): why
    for path, line, changes, why in (
        (
            "extract/pipeline/plan.py",
            "if filled:",
            ["False"],
            "the search for a free number starts lower, and takes longer",
        ),
        (
            "extract/pipeline/plan.py",
            'self._held.update((clip.clip_id, HeldClip(path, "", 0.0)) for clip in clips)',
            ["1.0"],
            "of a clip that will be written, only the shard is asked for",
        ),
        (
            "extract/alignment/align_shards.py",
            "if not 0 < samples < math.inf or abs(samples - round(samples)) > 1e-6:",
            ["GtE"],
            "no resolution gives exactly this rest",
        ),
        (
            "extract/alignment/align_shards.py",
            "digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())",
            ["False"],
            "the order of the keys is that of the header's fields, and settings are stored sorted",
        ),
        (
            "extract/alignment/align_shards.py",
            "if not job.target.exists():",
            ["False"],
            "a file that is not there cannot be read either",
        ),
        (
            "extract/alignment/align_shards.py",
            (
                "yield shard.stored(clip_id, start, start + _SAMPLES)[:, 0]"
                ".astype(np.int16, copy=False)"
            ),
            ["True"],
            "a copy has the same values",
        ),
        (
            "extract/inspection/verify.py",
            (
                "rows = max(1, _BLOCK_BYTES // max(1, dataset.dtype.itemsize * "
                "math.prod(dataset.shape[1:])))"
            ),
            ["2", "Mult swapped"],
            "how many rows are read together changes nothing but the memory",
        ),
        (
            "extract/inspection/verify.py",
            "finite = np.isfinite(block.reshape(len(block), -1)).all(axis=1)",
            ["2"],
            "numpy takes every negative number for -1",
        ),
        (
            "extract/inspection/verify.py",
            "fits = abs(count - expected) <= tolerance + sample_s / timing.hop_s",
            ["Lt"],
            "no clip lasts exactly so long",
        ),
        (
            "extract/inspection/verify.py",
            "if np.abs(np.diff(index.audio_offset) - samples).max(initial=0) > 1:",
            ["1"],
            "a difference of 1 is none, too",
        ),
        (
            "extract/inspection/verify_folder.py",
            'if len(shard.parents) > 2 and shard.parents[1].name in ("native", "aligned")',
            ["GtE"],
            "the last parent has no name",
        ),
        (
            "datasets/shards/seal.py",
            "while block := file.read(1 << 20):",
            ["2", "21"],
            "how many bytes are read together changes nothing but the memory",
        ),
        (
            "datasets/shards/reader.py",
            "self._blocks(name, block, block + 1)",
            ["2"],
            "blocks are read twice, and named as before",
        ),
        (
            "datasets/shards/workdir.py",
            'temporary.write_text(json.dumps(about, indent=2) + "\\n")',
            ["3"],
            "white space",
        ),
        (
            "train/training/run_files.py",
            'text = json.dumps({**values, "sha256": _checksum(values)}, indent=2)',
            ["3"],
            "white space",
        ),
        (
            "train/training/run_dir.py",
            'order = {"report.json": -2, "state.pt": -1, "config.json": 1}',
            ["2", "3"],
            "the order of the files stays",
        ),
        (
            "train/evaluation/bootstrap.py",
            "last = np.flatnonzero(np.diff(score, append=-1))  # clip of each group",
            ["2"],
            "neither number is a probability",
        ),
        (
            "train/evaluation/bootstrap.py",
            "return _clip_mean(2 * hit / np.maximum(sizes, 1), mask, counts)",
            ["2"],
            "a clip with one label in both sets together has no hit",
        ),
        (
            "train/evaluation/bootstrap.py",
            "return np.asarray(2 * (hit @ counts) / np.maximum(sizes @ counts, 1))",
            ["2"],
            "where one label is in both sets together, there is no hit",
        ),
        (
            "train/evaluation/metrics.py",
            "return float((2 * hit / np.maximum(sizes, 1))[mask.any(axis=1)].mean())",
            ["2"],
            "a clip with one label in both sets together has no hit",
        ),
        (
            "train/evaluation/metrics.py",
            "return float(2 * hit.sum() / max(sizes.sum(), 1))",
            ["2"],
            "where one label is in both sets together, there is no hit",
        ),
    )
    for change in changes
}
"""File, line and change of mutants without effect, which are left out, and why."""
