"""Published weight files into safetensors files whose keys are the torch networks' own."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pooch
from safetensors import safe_open
from safetensors.numpy import load_file, save

from featreg.datasets.base import FeatregError

from .checkpoints import (
    Array,
    named_damage,
    read_keras,
    read_musicnn,
    read_npz,
    read_tensorflow,
    read_torch,
)
from .layouts import layout
from .registry import WEIGHTS

# The one entry of ours in a header. One, because the library writes several in any order,
# and the same source must give the same file, byte for byte: its hash is stored.
METADATA_KEY = "featreg"


def convert(name: str, source: Path, target: Path) -> None:
    """Write the weights `name`, read from a published file, as a safetensors file.

    The name `target` appears only once the file is complete. Its header tells the hash of
    `source` and that of the arrays.

    Parameters
    ----------
    name
        Of the weights, such as ``openl3-mel256-env``.
    source
        A file in any of their published formats, or a safetensors file.
    target
        The file to write; its folder is made.

    Raises
    ------
    FeatregError
        If `source` cannot be read, or holds something else than these weights.
    """
    arrays = {
        key: np.ascontiguousarray(values, dtype=np.float32)
        for key, values in _read(name, source).items()
    }
    _check_shapes({key: values.shape for key, values in arrays.items()}, name, source)
    facts = {
        "weights": name,
        "source_sha256": source_sha256(source),
        "arrays_sha256": _arrays_sha256(arrays),
    }
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(save(arrays, {METADATA_KEY: json.dumps(facts, sort_keys=True)}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FeatregError(f"cannot write {target}: {error}") from error


def check_shapes(name: str, path: Path) -> None:
    """Refuse a safetensors file that does not hold the weights `name`; only its header is read.

    Raises
    ------
    FeatregError
        If an array is missing, has another shape, or is not known to the network.
    """
    with named_damage(path, "a safetensors file"), safe_open(path, "np") as file:
        keys = file.keys()  # it is no mapping
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in keys}
    _check_shapes(shapes, name, path)


def check_content(path: Path) -> str:
    """Check that a converted file holds the arrays that were written.

    Returns
    -------
    A few words: intact, and made from what; or that it records no hash, for a safetensors
    file that `convert` did not write.

    Raises
    ------
    FeatregError
        If the file is damaged, or the arrays are others.
    """
    with named_damage(path, "a safetensors file"):
        with safe_open(path, "np") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
        found = _arrays_sha256(load_file(path))
    if not facts:
        return "records no hash"
    if found != facts["arrays_sha256"]:
        raise FeatregError(
            f"{path}: expected arrays of sha256 {facts['arrays_sha256']}, found {found}; "
            "delete the file to have it made again"
        )
    return f"intact, made from sha256 {facts['source_sha256']}"


def source_sha256(source: Path) -> str:
    """Hash of a file, or of the names and hashes of the files in a folder."""
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if path.is_file())
        lines = "".join(f"{path.name} {source_sha256(path)}\n" for path in files)
        return hashlib.sha256(lines.encode()).hexdigest()
    return str(pooch.file_hash(str(source), alg="sha256"))


def _arrays_sha256(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(f"{key} {arrays[key].dtype} {arrays[key].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[key]).data)
    return digest.hexdigest()


def _read(name: str, source: Path) -> dict[str, Array]:
    """The weights `name`, whatever the format of `source`, under the network's keys."""
    if source.suffix == ".safetensors":
        with named_damage(source, "a safetensors file"):
            return load_file(source)
    with named_damage(source, f"{name} weights"):
        if name == "vggish":
            if source.suffix in (".pth", ".pt"):
                return read_torch(source)  # its keys became the network's
            from ..extractors.vggish import from_tensorflow

            return from_tensorflow(read_tensorflow(str(source)))
        if name == "vggish_pca":
            pca = read_torch(source) if source.suffix == ".pth" else read_npz(source)
            return {"eigen_vectors": pca["pca_eigen_vectors"], "means": pca["pca_means"].ravel()}
        if name.startswith("openl3-"):
            from ..extractors.openl3 import from_keras

            return from_keras(read_keras(source))
        if name.startswith("efficientat-"):
            state = read_torch(source)
            return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        from ..extractors.musicnn_network import from_tensorflow

        model = name.removeprefix("musicnn-").upper()
        return from_tensorflow(read_musicnn(source, f"{model}_musicnn"))


def _check_shapes(found: Mapping[str, tuple[int, ...]], name: str, path: Path) -> None:
    expected = layout(name)
    for key, shape in expected.items():
        if found.get(key) != shape:
            there = f"found shape {found[key]}" if key in found else "it is missing"
            raise FeatregError(
                f"{path}: {name}: {key}: expected shape {shape}, {there}{_sibling(found, name)}"
            )
    if unknown := sorted(found.keys() - expected.keys()):
        raise FeatregError(f"{path}: {name}: no such array in the network: {', '.join(unknown)}")


def _sibling(found: Mapping[str, tuple[int, ...]], name: str) -> str:
    """A hint for a file that holds another model of the same family; empty if it does not."""
    family = WEIGHTS[name].family
    for other in (weights.name for weights in WEIGHTS.values() if weights.family == family):
        if other != name and layout(other) == found:
            return f"; the file has the shapes of {other}: choose that model with --set"
    return ""
