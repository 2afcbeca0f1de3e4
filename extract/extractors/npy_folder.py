"""A feature that was computed elsewhere: a folder of ``.npy`` files, and when their rows are."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from featreg.datasets.audio.decode import fingerprint
from featreg.datasets.base import Clip, ClipError, UsageError
from featreg.datasets.shards.timing import FrameTiming

from .base import Array, Precision, Signal
from .custom import WholeClip

# Files whose shapes are looked at to learn how many values a row has.
_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class FolderConfig:
    """What there is to say about arrays made elsewhere.

    Attributes
    ----------
    folder
        Holds ``CLIP_ID.npy`` for every clip, in subfolders where the id has slashes.
    hop
        Seconds from one row to the next.
    window
        Seconds of audio that a row sees; None for the hop.
    first_center
        Where row 0 is centred, in seconds; None for half a hop, so that row i covers
        [i hop, (i + 1) hop).
    dim
        Values a row; None for what most of the files have.
    """

    folder: Path | None = None
    hop: float | None = None
    window: float | None = None
    first_center: float | None = None
    dim: int | None = None


class NpyFolder(WholeClip):
    """Rows from files: ``FOLDER/CLIP_ID.npy``, each an array of shape (rows, dim).

    A file that is missing, or is no such array, fails its clip; one that changes is read
    again. `config` must be one that `complete` returned.
    """

    Config = FolderConfig
    sample_rate = 16000  # what the audio beside it has: no other rate is needed

    def __init__(
        self,
        config: FolderConfig,
        weights: Mapping[str, Path],
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(config, weights, device, precision)
        if config.folder is None or config.hop is None or config.dim is None:
            raise ValueError(f"{config}: folder, hop and dim must be given")
        self.folder, self.dim, hop = config.folder, config.dim, config.hop
        window = hop if config.window is None else config.window
        first = hop / 2 if config.first_center is None else config.first_center
        self.timing = FrameTiming(hop, window, first)

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing that timing and rows do not say: where the folder lies does not matter."""
        return {"made": "elsewhere", "revision": self.revision}

    def compute(self, signal: Signal) -> Array:
        """Not asked for: `prepare` finds the rows in a file."""
        raise NotImplementedError

    def path(self, clip_id: str) -> Path:
        """The file of a clip.

        Raises
        ------
        ClipError
            If the id would lead out of the folder.
        """
        name = PurePosixPath(f"{clip_id}.npy")
        if name.is_absolute() or ".." in name.parts:
            raise ClipError(
                "extract",
                f"{self.name}: the clip's id names no file in {self.folder}; give the clips "
                "other ids, in a column clip_id",
            )
        return self.folder / name

    def fingerprint(self, clip: Clip, audio: str) -> str:
        """What audio and array hold."""
        try:
            path = self.path(clip.clip_id)
        except ClipError:
            return audio
        return audio + fingerprint(Clip(clip.clip_id, path, "train", clip.label, clip.label_mask))

    def prepare(self, clip_id: str, signal: Signal) -> Array:
        """The rows of the clip's file.

        Raises
        ------
        ClipError
            If there is no such file, or it does not hold rows of this feature.
        """
        path = self.path(clip_id)
        try:
            rows = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise ClipError("extract", f"no file {path}") from None
        except (OSError, ValueError, EOFError) as error:
            raise ClipError("extract", f"{path} is no array that can be read: {error}") from None
        return self.checked(rows, f"{path} holds", len(signal) / self.sample_rate)


def folder_class(name: str) -> type[NpyFolder]:
    """The class of the feature `name`, which lies in a folder."""
    return type("NpyFolder", (NpyFolder,), {"name": name})


def complete(name: str, config: FolderConfig) -> FolderConfig:
    """`config` with an absolute folder, and with `dim` from the files where it is not given.

    Raises
    ------
    UsageError
        If folder or hop are not given or cannot be, or the folder holds no arrays.
    """
    if config.folder is None or config.hop is None:
        lacking = "folder" if config.folder is None else "hop"
        raise UsageError(
            f"--features {name}: a folder of arrays needs --set {name}.folder=DIR and "
            f"--set {name}.hop=SECONDS; {name}.{lacking} is not given"
        )
    for key, value in (("hop", config.hop), ("window", config.window)):
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--set {name}.{key}={value:g}: expected seconds above 0")
    folder = config.folder.absolute()
    if not folder.is_dir():
        raise UsageError(f"--set {name}.folder={config.folder}: no such folder")
    dims = list(islice(_dims(folder), _SAMPLE))
    if not dims:
        raise UsageError(
            f"--set {name}.folder={config.folder}: expected files CLIP_ID.npy with arrays of "
            "shape (rows, values), found none"
        )
    dim = statistics.mode(dims) if config.dim is None else config.dim
    return dataclasses.replace(config, folder=folder, dim=dim)


def _dims(folder: Path) -> Iterator[int]:
    """Values a row in the files of a folder; those that hold no rows will fail their clips."""
    for path in sorted(folder.rglob("*.npy")):
        try:
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        except (OSError, ValueError, EOFError):
            continue
        if len(shape) == 2:
            yield shape[1]
