"""Checks of whether this machine can extract and train, with remedies for missing parts."""

from __future__ import annotations

import io
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np

from featreg.datasets.base import FeatregError
from featreg.datasets.shards.disk_space import existing, free_bytes

Level = Literal["ok", "note", "broken"]

# Extras for users, with their purposes; the other extras are for developers.
_EXTRAS = {
    "resampy": "--resampler kaiser_best, that of the published packages",
    "onnx": "train export --format onnx, the default",
    "parquet": "prep export --format parquet",
    "tensorboard": "train run --tensorboard",
    "tensorflow": "prep weights convert, from TensorFlow checkpoints",
}
_LITTLE_ROOM = 5e9  # bytes

# Audio formats to check, with the subtype of the test file.
_CODECS = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}
_RATE = 16000


@dataclass(frozen=True, slots=True)
class Finding:
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

    level: Level
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
        "weights": check_weights,
        "folders": lambda: check_folders(work),
        "datasets": lambda: check_datasets(work),
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
    fits = all((_numbers(python) >= _numbers(b)) == (sign == ">=") for sign, b in bounds)
    remedy = "" if fits else "create a virtual environment with a supported Python"
    yield Finding("ok" if fits else "broken", f"Python {python} (requires {needed})", remedy)
    yield Finding("ok", f"featreg {metadata.version('featreg')}: {Path(__file__).parents[2]}")
    fine = []
    for line in about.get_all("Requires-Dist") or ():
        parts = re.fullmatch(r"([\w.-]+)>=([\d.]+)(?:; extra == [\"'](\w+)[\"'])?", line)
        name, bound, extra = parts.groups() if parts else ("", "", "other")
        if extra and extra not in _EXTRAS:
            continue
        try:
            version = metadata.version(name)
            text = f"{name} {version}"
            if fits := _numbers(version) >= _numbers(bound):
                fine.append(text)
                continue
            text += f" is too old (requires {bound})"
        except metadata.PackageNotFoundError:
            text = f"{name} is not installed (requires {bound})"
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
    else:
        yield Finding("ok", "oneDNN's grouped products, for the convolutions of VGGish and OpenL3")
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

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            total = (torch.ones(8, device=f"cuda:{index}") * 2).sum().item()
            text = f"cuda:{index}: {device.name}, {device.total_memory / 1e9:.0f} GB"
            yield Finding("ok" if total == 16 else "broken", text)
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "note",
            f"there is an NVIDIA driver, but torch {torch.__version__} finds no GPU",
            "pip install torch --index-url https://download.pytorch.org/whl/cu128 (or other CUDA)",
        )
    else:
        yield Finding("ok", "none; extraction and training run on the processor")


def check_audio() -> Iterator[Finding]:
    """Encode and decode a second of audio in each format."""
    import soundfile

    yield Finding("ok", f"libsndfile {soundfile.__libsndfile_version__}")
    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(_RATE) / _RATE)
    for name, subtype in _CODECS.items():
        file = io.BytesIO()
        try:
            soundfile.write(file, sine, _RATE, format=name, subtype=subtype)
            file.seek(0)
            decoded, _ = soundfile.read(file)
        except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
            remedy = "pip install --force-reinstall soundfile (its wheel contains libsndfile)"
            yield Finding("broken", f"{name} files cannot be read: {error}", remedy)
            continue
        # Lossy codecs preserve the level and, except for padding, the length.
        alike = abs(decoded.std() - sine.std()) < 0.05 and abs(len(decoded) - _RATE) < 0.2 * _RATE
        text = f"{name} files can be read" if alike else f"{name} files are decoded incorrectly"
        yield Finding("ok" if alike else "broken", text)


def check_weights() -> Iterator[Finding]:
    """Check which trained weights are on this machine; others are downloaded on first use."""
    from ..weights.cache import cache, whereabouts
    from ..weights.registry import WEIGHTS

    for known in WEIGHTS.values():
        first = known.published[0]
        if location := whereabouts(known):
            yield Finding("ok", f"{known.name}: {location}")
        elif first.url:
            size = f"about {first.megabytes:g} MB"
            text = f"{known.name}: missing, downloaded on first use ({size})"
            yield Finding("note", text, f"prep weights fetch {known.name}")
        else:
            remedy = f"{first.source}; prep weights convert {known.name} {first.file}"
            yield Finding("note", f"{known.name}: missing, no automatic download", remedy)
    yield _folder("cache of weights", cache(), "set XDG_CACHE_HOME to another folder")


def check_folders(work: Path) -> Iterator[Finding]:
    """Check whether shards can be written to the working folder, and its free space."""
    from featreg.datasets.shards.hdf5 import create_shard, write_array

    remedy = "use another working folder (--work DIR or FEATREG_WORK=DIR)"
    yield _folder("working folder", work, remedy)
    try:
        with (
            tempfile.TemporaryDirectory(dir=existing(work), prefix=".featreg-doctor-") as scratch,
            create_shard(Path(scratch) / "shard.h5") as file,
        ):
            write_array(file, "frames", np.arange(1000))
    except (OSError, FeatregError) as error:
        yield Finding("broken", f"no HDF5 file can be written in {existing(work)}: {error}", remedy)
    room = free_bytes(work)
    few = room <= _LITTLE_ROOM
    remedy = "free disk space, or use another working folder (--work DIR)" if few else ""
    yield Finding("note" if few else "ok", f"{room / 1e9:.1f} GB free", remedy)
    for variable in ("FEATREG_DATA", "FEATREG_WEIGHTS"):
        if (value := os.environ.get(variable)) and not Path(value).is_dir():
            yield Finding("broken", f"{variable}={value}: no such folder", f"unset {variable}")


def _folder(what: str, path: Path, remedy: str) -> Finding:
    """Whether a folder is writable, or can be created."""
    parent = existing(path)
    if not os.access(parent, os.W_OK | os.X_OK):
        return Finding("broken", f"{what} {path}: {parent} is not writable", remedy)
    return Finding("ok", f"{what} {path}" + ("" if path.is_dir() else " (created when needed)"))


def check_datasets(work: Path) -> Iterator[Finding]:
    """Check which of the supported datasets are in their folders."""
    from featreg.datasets.collections import registry

    for name in registry.names():
        root = registry.default_root(name, work)
        if not root.is_dir():
            remedy = f"prep download {name}, or give its folder with --root"
            yield Finding("note", f"{name}: not in {root}", remedy)
            continue
        try:
            count = len(registry.read(name, None, work=work).clips)
        except FeatregError as error:
            yield Finding("note", f"{name}: {error}", f"prep datasets {name}")
        else:
            yield Finding("ok", f"{name}: {count:,} clips in {root}")
