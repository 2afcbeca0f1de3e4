"""What this machine brings for featreg's work: what is there, what is missing, what mends it."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from featreg.datasets.base import FeatregError
from featreg.datasets.shards.disk_space import existing, free_bytes

Level = Literal["ok", "note", "broken"]

# Extras that a user may want, and for what; the others are for those who work on featreg.
_EXTRAS = {
    "resampy": "--resampler kaiser_best, that of the published packages",
    "onnx": "train export --format onnx, the default",
    "tensorboard": "train run --tensorboard",
    "tensorflow": "prep weights convert, from TensorFlow checkpoints",
}
_OPENL3 = "0.4"  # the release that featreg's own follows
_LITTLE_ROOM = 5e9  # bytes; a night's shards take more


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    level
        ``ok``; ``note`` where something is missing that not everybody needs; ``broken``
        where `prep` or `train` cannot do its work.
    text
        What was found.
    remedy
        The line that mends it; empty where nothing needs mending.
    """

    level: Level
    text: str
    remedy: str = ""


def examine(work: Path) -> Iterator[tuple[str, list[Finding]]]:
    """Titles and findings, part by part; what keeps a part from being looked at is a finding.

    Parameters
    ----------
    work
        The working folder.
    """
    from .doctor_disk import check_audio, check_compiled, check_shards

    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "packages": check_packages,
        "processor": check_processor,
        "GPU": check_gpu,
        "compiled code": check_compiled,
        "audio": check_audio,
        "shards": lambda: check_shards(work),
        "weights": check_weights,
        "folders": lambda: check_folders(work),
        "datasets": lambda: check_datasets(work),
    }
    for title, check in checks.items():
        findings: list[Finding] = []
        try:
            findings.extend(check())
        except Exception as error:  # whatever it is, the other parts are still worth knowing
            findings.append(Finding("broken", f"{type(error).__name__}: {error}"))
        yield title, findings


def check_packages() -> Iterator[Finding]:
    """Python, featreg and every package that it declares, by the versions it declares."""
    about = metadata.metadata("featreg")
    bounds = re.findall(r"([<>]=?)([\d.]+)", about["Requires-Python"])
    python = platform.python_version()
    fits = all((_numbers(python) >= _numbers(b)) == (sign == ">=") for sign, b in bounds)
    yield Finding(
        "ok" if fits else "broken",
        f"Python {python} (needs {about['Requires-Python']})",
        "" if fits else "make a virtual environment with such a Python",
    )
    yield Finding("ok", f"featreg {metadata.version('featreg')}: {Path(__file__).parents[2]}")
    fine = []
    for line in about.get_all("Requires-Dist") or ():
        parts = re.fullmatch(r"([\w.-]+)>=([\d.]+)(?:; extra == [\"'](\w+)[\"'])?", line)
        if parts is None:
            continue
        name, bound, extra = parts.groups()
        if not extra:
            found = _package(name, bound, "broken", f"pip install '{name}>={bound}'")
            if found.level == "ok":
                fine.append(found.text)
            else:
                yield found
        elif extra in _EXTRAS:
            remedy = f"pip install '.[{extra}]' in featreg's repository"
            found = _package(name, bound, "note", remedy)
            yield Finding(found.level, f"{found.text}, for {_EXTRAS[extra]}", found.remedy)
    # No extra: featreg computes the same itself.
    found = _package("openl3", _OPENL3, "note", f"pip install 'openl3>={_OPENL3}'")
    yield Finding(found.level, f"{found.text}, for prep extract --backend openl3", found.remedy)
    yield Finding("ok", ", ".join(fine))


def _package(name: str, bound: str, otherwise: Level, remedy: str) -> Finding:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(otherwise, f"{name} is not installed (needs {bound})", remedy)
    if _numbers(version) < _numbers(bound):
        return Finding(otherwise, f"{name} {version} is too old (needs {bound})", remedy)
    return Finding("ok", f"{name} {version}")


def _numbers(version: str) -> list[int]:
    """``2.13.0+cpu`` as [2, 13, 0], which compares as versions do."""
    return [int(digits) for digits in re.findall(r"\d+", version.partition("+")[0])]


def check_processor() -> Iterator[Finding]:
    """Cores, memory, and what torch makes of them."""
    import torch
    from dask.system import CPU_COUNT

    from ..conv.grouped_matmul import why_slow

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = f"{CPU_COUNT} cores for this process, {memory / 1e9:.1f} GB of memory"
    if (limit := memory_limit()) < memory:
        text += f", of which its container or job may use {limit / 1e9:.1f} GB"
    yield Finding("ok", text)
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if known.get(name)]
    yield Finding("ok", f"instructions: {', '.join(fast) or platform.machine()}")
    if why := why_slow():
        yield Finding("note", why, "install the release of torch in constraints.txt")
    else:
        yield Finding("ok", "oneDNN's grouped products, for the convolutions of VGGish and OpenL3")
    threads = torch.get_num_threads()
    given = os.environ.get("OMP_NUM_THREADS")
    text = f"torch uses {threads} threads" + (f" (OMP_NUM_THREADS={given})" if given else "")
    if threads < CPU_COUNT:
        yield Finding("note", f"{text}, fewer than there are cores", "unset OMP_NUM_THREADS")
    else:
        yield Finding("ok", text)


def memory_limit(root: Path = Path("/")) -> float:
    """Bytes that this process's control groups allow together; infinite where none says.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` lie.
    """
    limits = [math.inf]
    groups = root / "proc" / "self" / "cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # A group is held to its parents' limits too. From within a container its own path may
        # not be there: its group is then at the top.
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):  # no such file; "max"
                limits.append(int((folder / name).read_text()))
    return min(limits)


def check_gpu() -> Iterator[Finding]:
    """Devices that torch can compute on."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            memory = device.total_memory / 1e9
            total = (torch.ones(8, device=f"cuda:{index}") * 2).sum().item()
            level: Level = "ok" if total == 16 else "broken"
            yield Finding(level, f"cuda:{index}: {device.name}, {memory:.0f} GB")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "note",
            f"there is an NVIDIA driver, but torch {torch.__version__} sees no GPU",
            "pip install torch --index-url https://download.pytorch.org/whl/cu128 (or your CUDA's)",
        )
    else:
        yield Finding("ok", "none; extraction and training run on the processor")


def check_weights() -> Iterator[Finding]:
    """Which trained weights are here; the others come on first use."""
    from ..weights.cache import cache, whereabouts
    from ..weights.registry import WEIGHTS

    for known in WEIGHTS.values():
        first = known.published[0]
        if here := whereabouts(known):
            yield Finding("ok", f"{known.name}: {here}")
        elif first.url:
            text = f"{known.name}: not here, fetched on first use (about {first.megabytes:g} MB)"
            yield Finding("note", text, f"prep weights fetch {known.name}")
        else:
            remedy = f"{first.source}; prep weights convert {known.name} {first.file}"
            yield Finding("note", f"{known.name}: not here, and has no address", remedy)
    yield _folder("cache of weights", cache(), "XDG_CACHE_HOME=DIR names another place for it")


def check_folders(work: Path) -> Iterator[Finding]:
    """Whether results can be written, and how many."""
    yield _folder("working folder", work, "--work DIR or FEATREG_WORK=DIR names another")
    free = free_bytes(work)
    yield Finding(
        "ok" if free > _LITTLE_ROOM else "note",
        f"{free / 1e9:.1f} GB free there",
        "" if free > _LITTLE_ROOM else "make room, or work elsewhere with --work DIR",
    )
    for variable in ("FEATREG_DATA", "FEATREG_WEIGHTS"):
        if (value := os.environ.get(variable)) and not Path(value).is_dir():
            yield Finding("broken", f"{variable}={value}: no such folder", f"unset {variable}")


def _folder(what: str, path: Path, remedy: str) -> Finding:
    """Whether a folder can be written to, or made."""
    there = existing(path)
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding("broken", f"{what} {path}: {there} cannot be written to", remedy)
    return Finding("ok", f"{what} {path}" + ("" if path.is_dir() else " (made when needed)"))


def check_datasets(work: Path) -> Iterator[Finding]:
    """Which of the known datasets are where they are looked for."""
    from featreg.datasets.collections import registry

    for name in registry.names():
        root = registry.default_root(name, work)
        if not root.is_dir():
            remedy = f"prep download {name}, or name its folder with --root"
            yield Finding("note", f"{name}: not in {root}", remedy)
            continue
        try:
            count = len(registry.read(name, None, work=work).clips)
        except FeatregError as error:
            yield Finding("note", f"{name}: {error}", f"prep datasets {name}")
        else:
            yield Finding("ok", f"{name}: {count:,} clips in {root}")
