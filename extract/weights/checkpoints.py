"""The formats in which trained weights are published, read into plain arrays.

None of the readers runs code from the file: what a pickle may hold is a short list, and
everything else in it is refused.
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
"""Memory that the contents of a weight file may take where the caller names no other bound."""


def read_keras(path: Path, most_bytes: int = MOST_BYTES) -> list[tuple[str, list[Array]]]:
    """Layers of a Keras weight file (``.h5``, or the same in gzip), those without weights left out.

    Returns
    -------
    For each layer its name and its arrays: layers in the order of the file's
    ``layer_names``, arrays in the order of the layer's ``weight_names``. The names
    themselves carry counters that differ from file to file.

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
    """Arrays of a numpy archive, by name; pickled objects in it are refused.

    Raises
    ------
    FeatregError
        If the file is not of this format, is damaged, holds a pickle, or takes more than
        `most_bytes`.
    """
    with named_damage(path, "a numpy archive of plain arrays (.npz)"):
        check_bytes(_unpacked_bytes(path), most_bytes)
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with archive:
            return dict(archive)


def read_torch(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, Array]:
    """Arrays of a torch state dict (``.pth``), by name, from tensors or numpy arrays.

    Raises
    ------
    FeatregError
        If the file is not of this format, is damaged, takes more than `most_bytes`, or its
        pickle asks for anything but tensors and arrays.
    """
    import torch
    from numpy._core.multiarray import _reconstruct

    # torchvggish published its PCA as numpy arrays; these are what their pickle needs,
    # under the names that numpy 1 and 2 give it.
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
        except pickle.UnpicklingError as error:  # its own text advises to load it all the same
            raise ValueError(
                "its pickle is damaged, or asks for more than tensors and arrays, which is refused"
            ) from error
        if not isinstance(content, Mapping):
            raise ValueError(f"it holds a {type(content).__name__}, expected arrays by name")
        return {name: np.asarray(values) for name, values in content.items()}


def read_tensorflow(prefix: str, most_bytes: int = MOST_BYTES) -> dict[str, Array]:
    """Variables of a TensorFlow checkpoint, by name.

    Parameters
    ----------
    prefix
        What TensorFlow calls the checkpoint: the file itself in the first version of
        the format, the common beginning of ``.index`` and ``.data-*`` in the second.

    Raises
    ------
    FeatregError
        If TensorFlow is not installed, or the checkpoint is not one, is damaged, or takes
        more than `most_bytes`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # else a page of notes on devices
    try:
        import tensorflow as tf
    except ImportError as error:
        raise FeatregError(
            f"{prefix}: TensorFlow is needed to read its checkpoints, once: "
            "pip install '.[tensorflow]' in featreg's repository"
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
        The folder with ``.index`` and ``.data-00000-of-00001`` (files without a stem), or
        the published wheel that holds such folders.
    model
        Name of the folder within the wheel, such as ``MSD_musicnn``.

    Raises
    ------
    FeatregError
        If the wheel has no such folder; otherwise as `read_tensorflow`.
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
            raise FeatregError(f"{path}: holds no folder {model}; expected the wheel of musicnn")
        return read_tensorflow(f"{folder}/", most_bytes)


def _unpacked_bytes(path: Path) -> int:
    """Size of a file, or of everything in a zip archive once it is unpacked."""
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
    """Refuse contents of more bytes than weights can have.

    Raises
    ------
    ValueError
        If they are more; `named_damage` adds the file.
    """
    if found > most:
        raise ValueError(
            f"its contents take {'more than ' if found == most + 1 else ''}{found / 1e6:,.0f} MB, "
            f"expected at most {most / 1e6:,.0f} MB for these weights"
        )


@contextmanager
def named_damage(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever a reader of `path` raises into one error that says what was `expected`."""
    try:
        yield
    except (FeatregError, ImportError):  # not the file's fault, or named already
        raise
    # A file of another kind, or half a file, fails anywhere in its reader and with any
    # exception: zip, zlib, HDF5, unpickling, missing names.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise FeatregError(
            f"{path}: cannot be read as {expected}: {type(error).__name__}: {reason}"
        ) from error
