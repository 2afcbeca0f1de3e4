"""Published weight files into safetensors files whose keys are the torch networks' own."""

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

# The one entry of ours in a header. One, because the library writes several in any order,
# and the same source must give the same file, byte for byte: its hash is stored.
METADATA_KEY = "featreg"

# A published file may hold other arrays beside the network's, such as an optimizer's state of
# twice its size, or float64; and a little of everything else.
_TIMES, _BESIDES = 4, 1 << 24


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
        If `source` cannot be read, takes more than four times the memory of these weights,
        or holds anything but these weights in finite numbers.
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
    """Refuse a safetensors file that does not hold the weights `name`.

    Raises
    ------
    FeatregError
        If an array is missing, has another shape or type, holds a value that is not finite,
        or is not known to the network.
    """
    _check_shapes(check_file(path), layout(name), name, path)


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
        check_file(path)
        if not facts:
            return "records no hash"
        found, expected = _arrays_sha256(load_file(path)), facts["arrays_sha256"]
        if found != expected:
            raise FeatregError(
                f"{path}: expected arrays of sha256 {expected}, found {found}; delete the file to "
                "have it made again"
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


def _as_float32(values: Array, what: str) -> Array:
    """An array as the network takes it; `what` names it in errors."""
    if values.dtype.kind not in "fiu":
        raise FeatregError(f"{what}: expected an array of numbers, found {values.dtype}")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused
        found = np.ascontiguousarray(values, dtype=np.float32)
    check_finite(what, found, "use another file")
    return found


def _read(name: str, source: Path, most_bytes: int) -> dict[str, Array]:
    """The weights `name`, whatever the format of `source`, under the network's keys."""
    if source.suffix == ".safetensors":
        with named_damage(source, "a safetensors file"):
            check_bytes(source.stat().st_size, most_bytes)
            return load_file(source)
    with named_damage(source, f"{name} weights"):
        if name == "vggish":
            if source.suffix in (".pth", ".pt"):
                return read_torch(source, most_bytes)  # its keys became the network's
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
