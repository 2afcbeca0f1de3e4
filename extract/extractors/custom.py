"""Features from outside: classes of the user's own.

A class is named as ``MODULE:CLASS``, its module found in the current folder or where
Python finds modules. It is a `WholeClip` where one function makes all rows of a clip::

    import librosa

    from featreg.datasets.shards.timing import FrameTiming
    from featreg.extract.extractors.custom import WholeClip


    class Chroma(WholeClip):
        name = "chroma"
        sample_rate = 22050
        dim = 12
        timing = FrameTiming(hop_s=512 / 22050, window_s=2048 / 22050, first_center_s=0.0)

        def compute(self, signal):
            return librosa.feature.chroma_stft(y=signal, sr=self.sample_rate, hop_length=512).T

or any other `Extractor`, where a network takes rows in batches. Arrays that were made
elsewhere need no code: see ``npy_folder.py``.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import math
import os
import re
import sys
import sysconfig
import traceback
from abc import abstractmethod
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from featreg.datasets.base import ClipError, FeatregError, UsageError
from featreg.datasets.shards.timing import FrameTiming

from .base import Array, Extractor, Signal

DTYPES = ("float32", "float16", "uint8", "int16")
"""Types in which a feature can be stored."""

# What is not the user's code begins like this: featreg, Python, and installed packages.
_INSTALLED = (sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
_FOREIGN = ("<", *(f"{folder}{os.sep}" for folder in (Path(__file__).parents[2], *_INSTALLED)))


@dataclass(frozen=True, slots=True)
class NoSettings:
    """Nothing to choose."""


class WholeClip(Extractor):
    """A feature whose rows are computed from all of a clip at once.

    A subclass says `name`, `sample_rate`, `dim` and `timing`, and how to `compute`; what
    the user may choose with ``--set NAME.KEY=VALUE`` are the fields of its `Config`, a
    frozen dataclass. Rows that are not what was promised, and whatever `compute` raises,
    fail their clip alone.
    """

    Config: ClassVar[type] = NoSettings
    batch_frames = 1 << 16
    _code_sha256: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        """Hash the module as it is imported: what is edited later is not what computes."""
        super().__init_subclass__(**options)
        source = getattr(sys.modules.get(cls.__module__), "__file__", None)
        code = Path(source).read_bytes() if source else b""
        cls._code_sha256 = hashlib.sha256(code).hexdigest()

    @abstractmethod
    def compute(self, signal: Signal) -> npt.ArrayLike:
        """Rows of shape (rows, dim), at least one, the first centred as `timing` says.

        Parameters
        ----------
        signal
            Shape (samples,), float32 in [-1, 1], at `sample_rate`.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """The user's choices, and a hash of the module: edited code is another feature."""
        return {**super().settings, "code_sha256": self._code_sha256}

    def prepare(self, clip_id: str, signal: Signal) -> Array:
        """All rows of the clip, checked.

        Raises
        ------
        ClipError
            If `compute` fails, or gives rows that cannot be.
        """
        try:
            rows = np.asarray(self.compute(signal))
        except (Exception, SystemExit) as error:
            raise ClipError("extract", f"{self.name}: {fault(error)}") from error
        return self.checked(rows, f"{self.name} gave", len(signal) / self.sample_rate)

    def checked(self, rows: Array, what: str, duration_s: float) -> Array:
        """`rows` in the type in which they are stored.

        Whether they are finite is checked where they are delivered: see `Batcher`.

        Parameters
        ----------
        rows
            Should have shape (rows, dim), at least one row, and numbers within `dtype`.
        what
            Begins the sentence of an error: "chroma gave".
        duration_s
            Of the clip, in seconds: at the feature's hop, so much audio makes about so
            many rows.

        Raises
        ------
        ClipError
            If anything is otherwise.
        """
        if rows.dtype.kind not in "fiub":
            raise ClipError("extract", f"{what} values of type {rows.dtype}, expected numbers")
        if rows.ndim != 2 or rows.shape[1] != self.dim or not len(rows):
            raise ClipError(
                "extract",
                f"{what} an array of shape {rows.shape}, expected (rows, {self.dim}), "
                "at least one row",
            )
        expected, leeway = likely_frames(self.timing, duration_s)
        if abs(len(rows) - expected) > leeway:
            raise ClipError(
                "extract",
                f"{what} {len(rows)} rows for {duration_s:.2f} s, expected about "
                f"{max(1, math.ceil(expected))} at a hop of {self.timing.hop_s:g} s; "
                "is the hop right?",
            )
        dtype = np.dtype(self.dtype)
        if dtype.kind in "iu":
            lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
            if not ((rows >= lowest) & (rows <= highest)).all():
                raise ClipError(
                    "extract", f"{what} values that are not from {lowest} to {highest} ({dtype})"
                )
        with np.errstate(over="ignore"):  # what overflows is infinite, and found later
            return rows.astype(dtype)

    # What goes through batches are rows that are computed already.

    def frames(self, samples: int) -> int:
        """One row for each of `prepare`."""
        return samples

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """Rows of what `prepare` gave, shape (stop - start, dim)."""
        return signal[start:stop]

    def network(self, inputs: Array) -> Array:
        """The same rows."""
        return inputs


def likely_frames(timing: FrameTiming, duration_s: float) -> tuple[float, float]:
    """About how many rows a clip has that was computed elsewhere, and how many more or less.

    A wrong hop is wrong by a factor; padding and dropped ends, by a window and a few rows.
    """
    expected = (duration_s - timing.first_center_s) / timing.hop_s
    return expected, 3 + timing.window_s / timing.hop_s + 0.1 * abs(expected)


def load_class(source: str) -> type[Extractor]:
    """The class that ``MODULE:CLASS`` names, from the Python path or the current folder.

    The current folder is put on the path, which the processes of a local cluster inherit.
    On a cluster elsewhere the module must be installed with every worker.

    Raises
    ------
    UsageError
        If there is no such module or class, or the class is no extractor.
    """
    module_name, _, attribute = source.partition(":")
    option = f"--features {source}"
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.split(".")[0]:
            raise UsageError(f"{option}: the module needs another, {error.name}") from error
        raise UsageError(
            f"{option}: no module {module_name} in {Path.cwd()} or on the Python path (the workers "
            "of a cluster need it too); expected MODULE:CLASS, such as mine:Chroma for the class "
            "Chroma in mine.py"
        ) from None
    except (Exception, SystemExit) as error:
        raise UsageError(f"{option}: the import fails: {fault(error)}") from error
    with named_faults(source):
        found = getattr(module, attribute, None)
    if not (inspect.isclass(found) and issubclass(found, Extractor)):
        classes = [item for item in vars(module).values() if inspect.isclass(item)]
        names = [each.__name__ for each in classes if each.__module__ == module.__name__]
        there = ", ".join(names) or "no class"
        raise UsageError(
            f"{option}: no extractor called {attribute!r}; expected a subclass of "
            f"featreg.extract.extractors.custom.WholeClip; {module.__file__} has {there}"
        )
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise UsageError(f"{option}: {attribute} does not define {', '.join(missing)}")
    if not isinstance(getattr(found, "name", None), str):
        raise UsageError(
            f"{option}: {attribute} has no name; expected one, such as name = 'chroma'"
        )
    return found


@contextmanager
def named_faults(source: str) -> Iterator[None]:
    """Turn whatever the user's class `source` raises into one line that says where it did.

    Raises
    ------
    UsageError
        In its place. Featreg's own errors stay as they are.
    """
    try:
        yield
    except FeatregError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"--features {source}: {fault(error)}") from error


def fault(error: BaseException) -> str:
    """An exception of the user's code on one line: its class, its message, file and line.

    The line is the last one outside of installed packages that led to the exception.
    """
    calls = traceback.extract_tb(error.__traceback__)
    places = [(call.filename, call.lineno) for call in calls]
    own = [place for place in places if not place[0].startswith(_FOREIGN)]
    if isinstance(error, SyntaxError) and error.filename:
        own = [(error.filename, error.lineno)]
        message = error.msg
    else:
        message = " ".join(str(error).split())
    where = f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""
    return f"{type(error).__name__}: {message}{where}"


def check_name(option: str, name: str, taken: Container[str]) -> None:
    """Refuse a name that cannot be a folder's, or is another feature's.

    Raises
    ------
    UsageError
        If it is so.
    """
    if name in taken:
        raise UsageError(f"{option}: the name {name} is taken; choose another")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(
            f"{option}: {name!r} names the feature and its folder; expected letters, digits, "
            "'_' and '-'"
        )


def check_complete(option: str, extractor: Extractor) -> None:
    """Refuse an extractor that does not say what its frames are.

    Raises
    ------
    UsageError
        If an attribute is missing or of another kind.
    """
    dtype = np.dtype(extractor.dtype).name
    if dtype not in DTYPES:
        raise UsageError(
            f"{option}: expected one of {', '.join(DTYPES)} as {type(extractor).__name__}.dtype, "
            f"found {dtype}"
        )
    settings = extractor.settings
    try:
        json.dumps(settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{option}: expected settings of text, finite numbers, lists and mappings, which are "
            f"stored as JSON; {type(extractor).__name__}.settings: {error}"
        ) from None
    kinds = {"sample_rate": int, "dim": int, "timing": FrameTiming, "batch_frames": int}
    for name, kind in kinds.items():
        value = getattr(extractor, name, None)
        if not isinstance(value, kind) or (isinstance(value, int) and value < 1):
            wanted = (
                "a FrameTiming (featreg.datasets.shards.timing)"
                if kind is FrameTiming
                else "a number above 0"
            )
            raise UsageError(
                f"{option}: expected {wanted} as {type(extractor).__name__}.{name}, found {value!r}"
            )
