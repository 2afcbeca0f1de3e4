"""Checks of whether this machine can extract and train, with remedies for missing parts.

`prep weights list` and `prep datasets` list the weights and datasets on this machine.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from featreg.datasets.base import FeatregError
from featreg.datasets.shards.disk_space import existing, free_bytes

# Extras for users, with their purposes; the other extras are for developers.
_EXTRAS = {
    "resampy": "--resampler kaiser_best, that of the published packages",
    "onnx": "train export --format onnx, the default, and features NAME=onnx:FILE",
    "parquet": "prep export --format parquet",
    "tensorboard": "train run --tensorboard",
    "tflite": "features NAME=tflite:FILE",
    "hf": "features NAME=hf:MODEL_ID",
    "tensorflow": "prep weights convert, from TensorFlow checkpoints",
}
_LITTLE_ROOM = 5e9  # bytes


class Finding(NamedTuple):
    """Result of a check.

    Attributes
    ----------
    level
        ``ok``; ``note`` if an optional part is missing; ``broken`` if `prep` or `train` cannot
        work.
    text
        Description of the result.
    remedy
        Command or option that fixes the problem; empty if there is none.
    """

    level: Literal["ok", "note", "broken"]
    text: str
    remedy: str = ""


def examine(work: Path) -> Iterator[tuple[str, list[Finding]]]:
    """Yield the title and the findings of each part; exceptions become findings.

    Parameters
    ----------
    work
        Working folder.
    """
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "packages": check_packages,
        "processor": check_processor,
        "GPU": check_gpu,
        "audio": check_audio,
        "folders": lambda: check_folders(work),
    }
    for title, check in checks.items():
        findings: list[Finding] = []
        try:
            findings.extend(check())
        except Exception as error:  # continue with the other parts
            findings.append(Finding("broken", f"{type(error).__name__}: {error}"))
        yield title, findings


def check_packages() -> Iterator[Finding]:
    """Check the versions of Python, featreg and its dependencies."""
    about = metadata.metadata("featreg")
    python, needed = platform.python_version(), about["Requires-Python"]
    bounds = re.findall(r"([<>]=?)([\d.]+)", needed)
    if all((_numbers(python) >= _numbers(b)) == (sign == ">=") for sign, b in bounds):
        yield Finding("ok", f"Python {python} (requires {needed})")
    else:
        remedy = "create a virtual environment with a supported Python"
        yield Finding("broken", f"Python {python} (requires {needed})", remedy)
    yield Finding("ok", f"featreg {metadata.version('featreg')}: {Path(__file__).parents[2]}")
    fine = []
    for line in about.get_all("Requires-Dist") or ():
        parts = re.fullmatch(r"([\w.-]+)>=([\d.]+)(?:; extra == [\"'](\w+)[\"'])?", line)
        name, bound, extra = parts.groups() if parts else ("", "", "other")
        if extra and extra not in _EXTRAS:
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = ""
        if version and _numbers(version) >= _numbers(bound):
            fine.append(f"{name} {version}")
            continue
        problem = f"{version} is too old" if version else "is not installed"
        text = f"{name} {problem} (requires {bound})"
        if extra:
            remedy = f"pip install '.[{extra}]' in featreg's repository"
            yield Finding("note", f"{text}, for {_EXTRAS[extra]}", remedy)
        else:
            yield Finding("broken", text, f"pip install '{name}>={bound}'")
    yield Finding("ok", ", ".join(fine))


def _numbers(version: str) -> list[int]:
    """Convert a version such as ``2.13.0+cpu`` to a comparable list, [2, 13, 0]."""
    return [int(digits) for digits in re.findall(r"\d+", version.partition("+")[0])]


def check_processor() -> Iterator[Finding]:
    """Check cores, memory, torch's threads, and whether numba can cache compiled code."""
    import torch
    from dask.system import CPU_COUNT

    from ..conv.grouped_matmul import why_slow

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("ok", f"{CPU_COUNT} cores for this process, {memory / 1e9:.1f} GB of memory")
    if why := why_slow():
        yield Finding("note", why, "install the release of torch in constraints.txt")
    threads, given = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    text = f"torch uses {threads} threads" + (f" (OMP_NUM_THREADS={given})" if given else "")
    if threads < CPU_COUNT:
        yield Finding("note", f"{text}, fewer than the cores", "unset OMP_NUM_THREADS")
    else:
        yield Finding("ok", text)
    try:
        from ..conv import kernels  # noqa: F401  # compiled when it is imported
    except RuntimeError as error:  # numba found no folder for its compiled code
        yield Finding("broken", f"numba: {error}", "set NUMBA_CACHE_DIR to a folder of your own")


def check_gpu() -> Iterator[Finding]:
    """Check the GPUs that torch can use."""
    import torch

    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        total = (torch.ones(8, device=f"cuda:{index}") * 2).sum().item()
        text = f"cuda:{index}: {device.name}, {device.total_memory / 1e9:.0f} GB"
        yield Finding("ok" if total == 16 else "broken", text)
    if torch.cuda.device_count():
        return
    if shutil.which("nvidia-smi"):
        text = f"there is an NVIDIA driver, but torch {torch.__version__} finds no GPU"
        remedy = "pip install torch --index-url https://download.pytorch.org/whl/cu128"
        yield Finding("note", text, f"{remedy} (or other CUDA)")
    else:
        yield Finding("ok", "none; extraction and training run on the processor")


def check_audio() -> Iterator[Finding]:
    """Check which audio formats libsndfile reads."""
    import soundfile

    library = f"libsndfile {soundfile.__libsndfile_version__}"
    for name in ("WAV", "FLAC", "OGG", "MP3"):
        if name in soundfile.available_formats():
            yield Finding("ok", f"{library} reads {name} files")
        else:
            remedy = "pip install --force-reinstall soundfile (its wheel contains libsndfile)"
            yield Finding("broken", f"{library} does not read {name} files", remedy)


def check_folders(work: Path) -> Iterator[Finding]:
    """Check whether shards can be written to the working folder, and its free space."""
    from featreg.datasets.shards.hdf5 import create_shard, write_array

    remedy = "use another working folder (--work DIR or FEATREG_WORK=DIR)"
    place = existing(work)
    try:
        with (
            tempfile.TemporaryDirectory(dir=place, prefix=".featreg-doctor-") as scratch,
            create_shard(Path(scratch) / "shard.h5") as file,
        ):
            write_array(file, "frames", np.arange(1000))
        yield Finding("ok", f"working folder {work}" + ("" if work.is_dir() else " (not yet made)"))
    except (OSError, FeatregError) as error:
        yield Finding("broken", f"working folder {work}: {place} is not writable: {error}", remedy)
    room = free_bytes(work)
    level: Literal["ok", "note"] = "note" if room <= _LITTLE_ROOM else "ok"
    yield Finding(level, f"{room / 1e9:.1f} GB free", remedy if level == "note" else "")
    for variable in ("FEATREG_DATA", "FEATREG_WEIGHTS"):
        if (value := os.environ.get(variable)) and not Path(value).is_dir():
            yield Finding("broken", f"{variable}={value}: no such folder", f"unset {variable}")
