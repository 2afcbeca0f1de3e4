"""Custom features, defined by a class of the user.

A class is given as ``MODULE:CLASS``; the module is searched in the current folder and on the
Python path. If one function computes all frames of a clip, derive the class from `WholeClip`::

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

If a network maps windows of fixed length to embeddings, derive it from
`windowed.Windowed`. Arrays that were computed by other programs need no code: see
``npy_folder.py``.
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
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from featreg.datasets.base import ClipError, FeatregError, UsageError
from featreg.datasets.shards.timing import FrameTiming

from .base import Array, Extractor, Signal

DTYPES = ("float32", "float16", "uint8", "int16")
"""Types in which a feature can be stored."""

# File names that are not the user's code begin with: featreg, Python, and installed packages.
_INSTALLED = (sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
_FOREIGN = ("<", *(f"{folder}{os.sep}" for folder in (Path(__file__).parents[2], *_INSTALLED)))


@dataclass(frozen=True, slots=True)
class NoSettings:
    """Configuration without settings."""


class WholeClip(Extractor):
    """Base class of features whose frames are computed from the whole clip at once.

    A subclass defines `name`, `sample_rate`, `dim`, `timing` and the method `compute`. The fields
    of its `Config`, a frozen dataclass, are the settings of ``--set NAME.KEY=VALUE``. Invalid
    frames, and exceptions of `compute`, fail only their clip.
    """

    Config: ClassVar[type] = NoSettings
    batch_frames = 1 << 16
    _code_sha256: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        """Hash the module when it is imported: later edits do not affect this process."""
        super().__init_subclass__(**options)
        cls._code_sha256 = code_sha256(cls)

    @abstractmethod
    def compute(self, signal: Signal) -> npt.ArrayLike:
        """Frames of shape (frames, dim), at least one, on the time grid `timing`.

        Parameters
        ----------
        signal
            Signal of shape (samples,), float32 in [-1, 1], at `sample_rate`.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """The user's settings, and a hash of the module, so that edits recompute the feature."""
        return {**super().settings, "code_sha256": self._code_sha256}

    def prepare(self, clip_id: str, signal: Signal) -> Array:
        """All frames of the clip, after `checked`.

        Raises
        ------
        ClipError
            If `compute` fails, or its frames are invalid.
        """
        try:
            frames = np.asarray(self.compute(signal))
        except ClipError:
            raise
        except (Exception, SystemExit) as error:
            raise ClipError("extract", f"{self.name}: {fault(error)}") from error
        return self.checked(frames, f"{self.name} returned", len(signal) / self.sample_rate)

    def checked(self, frames: Array, what: str, duration_s: float) -> Array:
        """Check frames and convert them to the stored type.

        `Batcher` checks that they are finite.

        Parameters
        ----------
        frames
            Frames of shape (frames, dim), at least one, with numbers in the range of `dtype`.
        what
            Beginning of error messages, such as "chroma returned".
        duration_s
            Duration of the clip in seconds, which determines the approximate number of frames.

        Raises
        ------
        ClipError
            If the frames are invalid.
        """
        if frames.dtype.kind not in "fiub":
            raise ClipError("extract", f"{what} values of type {frames.dtype}, expected numbers")
        if frames.ndim != 2 or frames.shape[1] != self.dim or not len(frames):
            raise ClipError(
                "extract",
                f"{what} an array of shape {frames.shape}, expected (frames, {self.dim}), "
                "at least 1 frame",
            )
        expected, tolerance = likely_frames(self.timing, duration_s)
        if abs(len(frames) - expected) > tolerance:
            raise ClipError(
                "extract",
                f"{what} {len(frames)} frames for {duration_s:.2f} s, expected about "
                f"{max(1, math.ceil(expected))} with a hop of {self.timing.hop_s:g} s; "
                "check the hop",
            )
        dtype = np.dtype(self.dtype)
        if dtype.kind in "iu":
            lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
            if not ((frames >= lowest) & (frames <= highest)).all():
                raise ClipError(
                    "extract", f"{what} values outside of {lowest} to {highest} ({dtype})"
                )
        with np.errstate(over="ignore"):  # overflow gives infinity, which is detected later
            return frames.astype(dtype)

    # The batches contain frames that `compute` has computed already.

    def frames(self, samples: int) -> int:
        """Number of frames that `prepare` returned."""
        return samples

    def inputs(self, signal: Signal, start: int, stop: int) -> Array:
        """Frames `start` to `stop` - 1 that `prepare` returned, shape (stop - start, dim)."""
        return signal[start:stop]

    def network(self, inputs: Array) -> Array:
        """The inputs, unchanged."""
        return inputs


def code_sha256(cls: type) -> str:
    """Hash of the module of a class, as it is now."""
    source = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return hashlib.sha256(Path(source).read_bytes() if source else b"").hexdigest()


def likely_frames(timing: FrameTiming, duration_s: float) -> tuple[float, float]:
    """Approximate number of frames of a clip in a custom feature, and its tolerance.

    A wrong hop changes the number by a factor; padding and dropped ends change it by a window and
    a few frames.
    """
    expected = (duration_s - timing.first_center_s) / timing.hop_s
    return expected, 3 + timing.window_s / timing.hop_s + 0.1 * abs(expected)


def load_module(name: str, option: str, expected: str) -> ModuleType:
    """Import a module from the Python path or the current folder.

    The current folder is added to the path, which the workers of a local cluster inherit. For
    other clusters, the module must be installed on every worker.

    Raises
    ------
    UsageError
        If there is no such module, or it cannot be imported. The message begins with `option`, and
        says what is `expected` there.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        parents = [name[: k.start()] for k in re.finditer(r"\.|$", name)]
        if error.name not in parents:
            raise UsageError(
                f"{option}: the module imports {error.name}, which is not installed"
            ) from error
        raise UsageError(
            f"{option}: no module {error.name} in {Path.cwd()} or on the Python path (workers of "
            f"a cluster require it, too); expected {expected}"
        ) from None
    except (Exception, SystemExit) as error:
        raise UsageError(f"{option}: the import failed: {fault(error)}") from error


def load_class(source: str) -> type[Extractor]:
    """Import the class ``MODULE:CLASS``; see `load_module`.

    Raises
    ------
    UsageError
        If there is no such module or class, or the class is not an extractor.
    """
    module_name, _, attribute = source.partition(":")
    option = f"--features {source}"
    module = load_module(
        module_name, option, "MODULE:CLASS, such as mine:Chroma for the class Chroma in mine.py"
    )
    with named_faults(source):
        found = getattr(module, attribute, None)
    if not (inspect.isclass(found) and issubclass(found, Extractor)):
        classes = [item for item in vars(module).values() if inspect.isclass(item)]
        names = [each.__name__ for each in classes if each.__module__ == module.__name__]
        found_classes = ", ".join(names) or "none"
        raise UsageError(
            f"{option}: no extractor called {attribute!r}; expected a subclass of "
            f"featreg.extract.extractors.custom.WholeClip; classes of {module.__file__}: "
            f"{found_classes}"
        )
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise UsageError(f"{option}: {attribute} does not define {', '.join(missing)}")
    if not isinstance(getattr(found, "name", None), str):
        raise UsageError(f"{option}: {attribute} has no name; add one, such as name = 'chroma'")
    return found


@contextmanager
def named_faults(source: str) -> Iterator[None]:
    """Convert exceptions of the user's class `source` to a one-line error with their location.

    Raises
    ------
    UsageError
        Instead of the exception. A `FeatregError` is not converted.
    """
    try:
        yield
    except FeatregError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"--features {source}: {fault(error)}") from error


def fault(error: BaseException) -> str:
    """Description of an exception of the user's code: its class, message, file and line.

    The line is the last one of the traceback outside of installed packages.
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
    """Check that a name is valid for a feature and its folder, and not in use.

    Raises
    ------
    UsageError
        If the name is invalid or in use.
    """
    if name in taken:
        raise UsageError(f"{option}: the name {name} is in use; choose another name")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(
            f"{option}: {name!r} is the name of the feature and its folder; expected only letters, "
            "digits, '_' and '-'"
        )


def check_complete(option: str, extractor: Extractor) -> None:
    """Check that an extractor defines all attributes.

    Raises
    ------
    UsageError
        If an attribute is missing or invalid.
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
            f"{option}: expected settings that can be stored as JSON (strings, finite numbers, "
            f"lists, mappings); {type(extractor).__name__}.settings: {error}"
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
