"""Readers of the published formats of trained weights.

No reader executes code from the file: pickles may contain a short list of types, and all others
are rejected.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from featreg.datasets.base import FeatregError

Array = npt.NDArray[Any]

GZIP_MAGIC = b"\x1f\x8b"

MOST_BYTES = 1 << 30
"""Default limit of the memory that the content of a weights file may take, in bytes."""


def read_keras(path: Path, most_bytes: int = MOST_BYTES) -> list[tuple[str, list[Array]]]:
    """Layers with weights of a Keras weights file (``.h5``, optionally compressed by gzip).

    Returns
    -------
    Name and arrays of each layer: layers in the order of the file's ``layer_names``, arrays in the
    order of the layer's ``weight_names``. The names contain numbers that differ between files.

    Raises
    ------
    FeatregError
        If the file is not of this format, is damaged, or takes more than `most_bytes`.
    """
    import h5py

    with named_damage(path, "a Keras weight file (.h5 or .h5.gz)"):
        with path.open("rb") as packed:
            zipped = packed.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        content: Any = path
        if zipped:
            with gzip.open(path) as unpacked:
                content = io.BytesIO(unpacked.read(most_bytes + 1))
            check_bytes(content.getbuffer().nbytes, most_bytes)
        with h5py.File(content, "r") as file:
            layers = [
                (layer, [file[layer][weight] for weight in _names(file[layer], "weight")])
                for layer in _names(file, "layer")
            ]
            # A file of a few bytes may declare arrays of any size.
            check_bytes(sum(each.nbytes for _, sets in layers for each in sets), most_bytes)
            return [(layer, [np.asarray(each) for each in sets]) for layer, sets in layers if sets]


def _names(group: Any, kind: str) -> list[str]:
    """The attribute ``layer_names`` or ``weight_names``: Keras wrote bytes or text."""
    return [
        name.decode() if isinstance(name, bytes) else str(name)
        for name in group.attrs[f"{kind}_names"]
    ]


def read_npz(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, Array]:
    """Arrays of a NumPy archive, by name; pickled objects are rejected.

    Raises
    ------
    FeatregError
        If the file is not of this format, is damaged, contains a pickle, or takes more than
        `most_bytes`.
    """
    with named_damage(path, "a numpy archive of plain arrays (.npz)"):
        check_bytes(_unpacked_bytes(path), most_bytes)
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("expected several arrays, found a single one")
        with archive:
            return dict(archive)


def read_torch(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, Array]:
    """Arrays of a torch state dict (``.pth``), by name, from tensors or numpy arrays.

    Raises
    ------
    FeatregError
        If the file is not of this format, is damaged, takes more than `most_bytes`, or its
        pickle contains anything except tensors and arrays.
    """
    import torch
    from numpy._core.multiarray import _reconstruct

    # torchvggish published its PCA as NumPy arrays, whose pickle requires these types, with their
    # names in NumPy 1 and 2.
    arrays: list[Any] = [
        (_reconstruct, "numpy.core.multiarray._reconstruct"),
        (_reconstruct, "numpy._core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        np.dtypes.Float32DType,
        np.dtypes.Float64DType,
    ]
    with (
        named_damage(path, "a torch file of plain tensors (.pth)"),
        torch.serialization.safe_globals(arrays),
    ):
        check_bytes(_unpacked_bytes(path), most_bytes)
        _check_archive(path)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # its message advises unsafe loading
            raise ValueError(
                "its pickle is damaged, or contains other types than tensors and arrays"
            ) from error
        if not isinstance(content, Mapping):
            raise ValueError(f"expected arrays by name, found a {type(content).__name__}")
        return {name: np.asarray(values) for name, values in content.items()}


def read_tensorflow(prefix: str, most_bytes: int = MOST_BYTES) -> dict[str, Array]:
    """Variables of a TensorFlow checkpoint, by name.

    Parameters
    ----------
    prefix
        Path of the checkpoint: the file in the first version of the format, and the common prefix
        of ``.index`` and ``.data-*`` in the second version.

    Raises
    ------
    FeatregError
        If TensorFlow is not installed, or the checkpoint is invalid, damaged, or takes more than
        `most_bytes`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # suppress messages about devices
    try:
        import tensorflow as tf
    except ImportError as error:
        raise FeatregError(
            f"{prefix}: converting a TensorFlow checkpoint requires TensorFlow; run "
            "`pip install '.[tensorflow]'` in featreg's repository"
        ) from error
    with named_damage(Path(prefix), "a TensorFlow checkpoint"):
        reader = tf.compat.v1.train.NewCheckpointReader(prefix)
        shapes = reader.get_variable_to_shape_map()
        check_bytes(4 * sum(map(math.prod, shapes.values())), most_bytes)
        return {name: reader.get_tensor(name) for name in shapes}


def read_musicnn(path: Path, model: str, most_bytes: int = MOST_BYTES) -> dict[str, Array]:
    """Variables of a musicnn checkpoint, by name.

    Parameters
    ----------
    path
        Folder with the files ``.index`` and ``.data-00000-of-00001``, or the published wheel with
        such folders.
    model
        Name of the folder in the wheel, such as ``MSD_musicnn``.

    Raises
    ------
    FeatregError
        If the wheel has no such folder; see also `read_tensorflow`.
    """
    if path.is_dir():
        return read_tensorflow(f"{path}/", most_bytes)
    with tempfile.TemporaryDirectory() as folder:
        with (
            named_damage(path, f"the musicnn wheel, or a folder {model}"),
            zipfile.ZipFile(path) as wheel,
        ):
            members = [
                each
                for each in wheel.infolist()
                if PurePosixPath(each.filename).parent.name == model
            ]
            check_bytes(sum(each.file_size for each in members), most_bytes)
            for each in members:
                target = Path(folder) / PurePosixPath(each.filename).name
                target.write_bytes(wheel.read(each))
        if not any(Path(folder).iterdir()):
            raise FeatregError(f"{path}: expected the wheel of musicnn, found no folder {model}")
        return read_tensorflow(f"{folder}/", most_bytes)


def _unpacked_bytes(path: Path) -> int:
    """Size of a file, or of the unpacked members of a zip archive."""
    if not zipfile.is_zipfile(path):
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return sum(each.file_size for each in archive.infolist())


def _check_archive(path: Path) -> None:
    """Refuse a zip archive with a wrong checksum, which torch does not look at."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (member := archive.testzip()) is not None:
                raise ValueError(f"its member {member} has a wrong checksum")


def check_bytes(found: int, most: int) -> None:
    """Check that the content of a file is not larger than `most` bytes.

    Raises
    ------
    ValueError
        If it is larger; `named_damage` adds the name of the file.
    """
    if found > most:
        raise ValueError(
            f"its content takes {'more than ' if found == most + 1 else ''}{found / 1e6:,.0f} MB, "
            f"expected at most {most / 1e6:,.0f} MB for these weights"
        )


@contextmanager
def named_damage(path: Path, expected: str) -> Iterator[None]:
    """Convert exceptions of a reader of `path` to an error that states what was `expected`."""
    try:
        yield
    except (FeatregError, ImportError):  # not caused by the file, or converted already
        raise
    # Files of other formats and truncated files can cause any exception: of zip, zlib, HDF5 or
    # pickle, or for missing names.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise FeatregError(
            f"{path}: cannot be read as {expected}: {type(error).__name__}: {reason}"
        ) from error
