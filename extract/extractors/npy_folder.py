"""Features computed by other programs: a folder of ``.npy`` files and their time grid."""

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

# Number of files from whose shapes the number of dimensions is derived.
_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class FolderConfig:
    """Settings of `NpyFolder`.

    Attributes
    ----------
    folder
        Folder with a file ``CLIP_ID.npy`` for every clip, in subfolders if the id has slashes.
    hop
        Seconds from one frame to the next.
    window
        Seconds of audio from which a frame was computed; the hop if None.
    first_center
        Center of frame 0 in seconds; half a hop if None, so that frame i covers
        [i hop, (i + 1) hop).
    dim
        Number of dimensions of a frame; that of most files if None.
    """

    folder: Path | None = None
    hop: float | None = None
    window: float | None = None
    first_center: float | None = None
    dim: int | None = None


class NpyFolder(WholeClip):
    """Frames read from the files ``FOLDER/CLIP_ID.npy``, arrays of shape (frames, dim).

    A missing or invalid file fails its clip; a changed file is read again. `config` must be
    returned by `complete`.
    """

    Config = FolderConfig
    sample_rate = 16000  # that of the stored audio, so that no other rate is needed

    def __init__(
        self,
        config: FolderConfig,
        weights: Mapping[str, Path],
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        super().__init__(config, weights, device, precision)
        if config.folder is None or config.hop is None or config.dim is None:
            raise ValueError(f"expected folder, hop and dim, found {config}")
        self.folder, self.dim, hop = config.folder, config.dim, config.hop
        window = hop if config.window is None else config.window
        first = hop / 2 if config.first_center is None else config.first_center
        self.timing = FrameTiming(hop, window, first)

    @property
    def settings(self) -> dict[str, Any]:
        """Constant settings: the location of the folder does not affect the values."""
        return {"made": "elsewhere", "revision": self.revision}

    def compute(self, signal: Signal) -> Array:
        """Not used: `prepare` reads the frames from a file."""
        raise NotImplementedError

    def path(self, clip_id: str) -> Path:
        """The file of a clip.

        Raises
        ------
        ClipError
            If the path would be outside of the folder.
        """
        name = PurePosixPath(f"{clip_id}.npy")
        if name.is_absolute() or ".." in name.parts:
            raise ClipError(
                "extract",
                f"{self.name}: expected a clip id that is a file name in {self.folder}; change "
                "the column clip_id",
            )
        return self.folder / name

    def fingerprint(self, clip: Clip, audio: str) -> str:
        """Fingerprint of the audio and of the array."""
        try:
            path = self.path(clip.clip_id)
        except ClipError:
            return audio
        return audio + fingerprint(Clip(clip.clip_id, path, "train", clip.label, clip.label_mask))

    def prepare(self, clip_id: str, signal: Signal) -> Array:
        """Frames in the clip's file.

        Raises
        ------
        ClipError
            If the file is missing or invalid.
        """
        path = self.path(clip_id)
        try:
            frames = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise ClipError("extract", f"{path}: file not found") from None
        except (OSError, ValueError, EOFError) as error:
            raise ClipError("extract", f"{path}: not a readable array: {error}") from None
        return self.checked(frames, f"{path} contains", len(signal) / self.sample_rate)


def folder_class(name: str) -> type[NpyFolder]:
    """Class of the feature `name`, whose frames are in a folder."""
    return type("NpyFolder", (NpyFolder,), {"name": name})


def complete(name: str, config: FolderConfig) -> FolderConfig:
    """`config` with an absolute folder, and with `dim` derived from the files if it is None.

    Raises
    ------
    UsageError
        If folder or hop is missing or invalid, or the folder contains no arrays.
    """
    if config.folder is None or config.hop is None:
        lacking = "folder" if config.folder is None else "hop"
        raise UsageError(
            f"--features {name}: a folder of arrays requires --set {name}.folder=DIR and "
            f"--set {name}.hop=SECONDS; {name}.{lacking} is missing"
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
            "shape (frames, dimensions), found none"
        )
    dim = statistics.mode(dims) if config.dim is None else config.dim
    return dataclasses.replace(config, folder=folder, dim=dim)


def _dims(folder: Path) -> Iterator[int]:
    """Number of dimensions of each readable array in a folder; others fail their clips later."""
    for path in sorted(folder.rglob("*.npy")):
        try:
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        except (OSError, ValueError, EOFError):
            continue
        if len(shape) == 2:
            yield shape[1]
