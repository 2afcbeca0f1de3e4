"""Conversion of published weights files to safetensors files with the keys of our networks."""

from __future__ import annotations

import hashlib
import json
import math
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
    check_bytes,
    named_damage,
    read_keras,
    read_musicnn,
    read_npz,
    read_tensorflow,
    read_torch,
)
from .layouts import Layout, layout
from .load import check_file, check_finite
from .registry import WEIGHTS

# Key of our metadata in the header. There is only one, because the library writes several keys in
# arbitrary order, but equal sources must give identical files, whose hash is stored.
METADATA_KEY = "featreg"

# A published file may contain float64 arrays, or an optimizer's state of twice the network's size,
# and a small amount of other content.
_TIMES, _BESIDES = 4, 1 << 24


def convert(name: str, source: Path, target: Path) -> None:
    """Convert a published file with the weights `name` to a safetensors file.

    The file `target` appears only once it is complete. Its header contains the hashes of
    `source` and of the arrays.

    Parameters
    ----------
    name
        Name of the weights, such as ``openl3-mel256-env``.
    source
        File in any of their published formats, or a safetensors file.
    target
        File to write; its folder is created.

    Raises
    ------
    FeatregError
        If `source` cannot be read, takes more than four times the memory of these weights,
        has other arrays than these weights, or values that are not finite.
    """
    expected = layout(name)
    most_bytes = _TIMES * 4 * sum(map(math.prod, expected.values())) + _BESIDES
    found = _read(name, source, most_bytes)
    _check_shapes({key: values.shape for key, values in found.items()}, expected, name, source)
    arrays = {key: _as_float32(values, f"{source}: {name}: {key}") for key, values in found.items()}
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


def check_weights(name: str, path: Path) -> None:
    """Check that a safetensors file contains the weights `name`.

    Raises
    ------
    FeatregError
        If an array is missing, has another shape or type, has a value that is not finite, or is
        not part of the network.
    """
    _check_shapes(check_file(path), layout(name), name, path)


def check_content(path: Path) -> str:
    """Check that the arrays of a converted file are intact.

    Returns
    -------
    The result in words: intact, with the hash of the source; or that the file records no hash,
    because it was not written by `convert`.

    Raises
    ------
    FeatregError
        If the file is damaged, or its arrays have changed.
    """
    with named_damage(path, "a safetensors file"):
        with safe_open(path, "np") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
        check_file(path)
        if not facts:
            return "records no hash"
        found, expected = _arrays_sha256(load_file(path)), facts["arrays_sha256"]
        if found != expected:
            raise FeatregError(
                f"{path}: expected arrays of sha256 {expected}, found {found}; delete the file and "
                "convert the weights again"
            )
        return f"intact, converted from sha256 {facts['source_sha256']}"


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


def _as_float32(values: Array, what: str) -> Array:
    """Convert an array to float32; `what` is its name in error messages."""
    if values.dtype.kind not in "fiu":
        raise FeatregError(f"{what}: expected an array of numbers, found {values.dtype}")
    with np.errstate(over="ignore"):  # overflow gives infinity, which is rejected
        found = np.ascontiguousarray(values, dtype=np.float32)
    check_finite(what, found, "use another file")
    return found


def _read(name: str, source: Path, most_bytes: int) -> dict[str, Array]:
    """State dict of the weights `name` from a file of any supported format."""
    if source.suffix == ".safetensors":
        with named_damage(source, "a safetensors file"):
            check_bytes(source.stat().st_size, most_bytes)
            return load_file(source)
    with named_damage(source, f"{name} weights"):
        if name == "vggish":
            if source.suffix in (".pth", ".pt"):
                return read_torch(source, most_bytes)  # it has the network's keys
            from ..extractors.vggish import from_tensorflow

            return from_tensorflow(read_tensorflow(str(source), most_bytes))
        if name == "vggish_pca":
            read = read_torch if source.suffix == ".pth" else read_npz
            pca = read(source, most_bytes)
            return {"eigen_vectors": pca["pca_eigen_vectors"], "means": pca["pca_means"].ravel()}
        if name.startswith("openl3-"):
            from ..extractors.openl3 import from_keras

            return from_keras(read_keras(source, most_bytes))
        if name.startswith("efficientat-"):
            state = read_torch(source, most_bytes)
            return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        from ..extractors.musicnn_network import from_tensorflow

        model = name.removeprefix("musicnn-").upper()
        return from_tensorflow(read_musicnn(source, f"{model}_musicnn", most_bytes))


def _check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Layout, name: str, path: Path
) -> None:
    for key, shape in expected.items():
        if found.get(key) != shape:
            actual = f"found shape {found[key]}" if key in found else "it is missing"
            raise FeatregError(
                f"{path}: {name}: {key}: expected shape {shape}, {actual}{_sibling(found, name)}"
            )
    if unknown := sorted(found.keys() - expected.keys()):
        raise FeatregError(f"{path}: {name}: unknown arrays: {', '.join(unknown)}")


def _sibling(found: Mapping[str, tuple[int, ...]], name: str) -> str:
    """Hint if the file contains another model of the same family; empty if it does not."""
    family = WEIGHTS[name].family
    for other in (weights.name for weights in WEIGHTS.values() if weights.family == family):
        if other != name and layout(other) == found:
            return f"; the file has the shapes of {other}: select that model with --set"
    return ""
