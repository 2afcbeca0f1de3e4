"""Kind 12: files of weights that hold text, code, nothing, too much, or numbers that are none."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .cases import RIGHT, WRONG, Case, Kit, Result
from .commands import call, refused
from .run_folders import ANY_FILE, Code, flip

_PCA = {"pca_eigen_vectors": (128, 128), "pca_means": (128, 1)}


def _arrays(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {key: rng.standard_normal(shape, np.float32) for key, shape in _PCA.items()}


def _npz(change: Callable[[dict[str, Any]], None]) -> Callable[[int], bytes]:
    def make(seed: int) -> bytes:
        arrays, target = _arrays(seed), io.BytesIO()
        change(arrays)
        np.savez(target, **arrays)
        return target.getvalue()

    return make


def _put(key: str, change: Callable[[Any], Any]) -> Callable[[int], bytes]:
    return _npz(lambda arrays: arrays.update({key: change(arrays[key])}))


def _first(value: float) -> Callable[[Any], Any]:
    def put(array: Any) -> Any:
        changed = array.copy()
        changed[0, 0] = value
        return changed

    return put


def _torch(value: Callable[[int], Any]) -> Callable[[int], bytes]:
    def make(seed: int) -> bytes:
        import torch

        target = io.BytesIO()
        torch.save(value(seed), target)
        return target.getvalue()

    return make


def _tensors(seed: int) -> dict[str, Any]:
    import torch

    return {key: torch.from_numpy(value) for key, value in _arrays(seed).items()}


def _bomb(seed: int) -> bytes:
    return gzip.compress(bytes(300 << 20), 1)


def _zip_bomb(seed: int) -> bytes:
    target = io.BytesIO()
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": (128, 1 << 20)}
    )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("pca_eigen_vectors.npy", head.getvalue() + bytes(128 << 20))
        file.writestr("pca_means.npy", head.getvalue())
    return target.getvalue()


_EIGEN = "pca_eigen_vectors"
# Name: the weights' name, the file's name, its bytes, and whether they are right.
_FILES: dict[str, tuple[str, str, Callable[[int], bytes], bool]] = {
    "npz": ("vggish_pca", "p.npz", _npz(lambda arrays: None), True),
    "npz-float64": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: a.astype(float)), True),
    "npz-text": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: a.astype(str)), False),
    "npz-words": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: np.full(a.shape, "x")), False),
    "npz-bytes": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: a.astype("S9")), False),
    "npz-complex": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: a + 1j), False),
    "npz-dates": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: np.zeros(a.shape, "M8[s]")), False),
    "npz-objects": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: a.astype(object)), False),
    "npz-code": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: np.array([Code()], object)), False),
    "npz-nan": ("vggish_pca", "p.npz", _put(_EIGEN, _first(np.nan)), False),
    "npz-inf": ("vggish_pca", "p.npz", _put(_EIGEN, _first(np.inf)), False),
    "npz-all-nan": ("vggish_pca", "p.npz", _put("pca_means", lambda a: a * np.nan), False),
    "npz-huge": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: a.astype(float) * 1e300), False),
    "npz-shape": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: a[:, :5]), False),
    "npz-empty-array": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: a[:0]), False),
    "npz-scalar": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: np.float32(1)), False),
    "npz-structured": ("vggish_pca", "p.npz", _put(_EIGEN, lambda a: np.zeros(3, "f4,i4")), False),
    "npz-missing": ("vggish_pca", "p.npz", _npz(lambda arrays: arrays.pop(_EIGEN)), False),
    "npz-none": ("vggish_pca", "p.npz", _npz(lambda arrays: arrays.clear()), False),
    "npz-bomb": ("vggish_pca", "p.npz", _zip_bomb, False),
    "npy": ("vggish_pca", "p.npz", lambda seed: pickle.dumps(_arrays(seed)), False),
    "pth": ("vggish_pca", "p.pth", _torch(_tensors), True),
    "pth-code": ("vggish_pca", "p.pth", _torch(lambda seed: {_EIGEN: Code()}), False),
    "pth-list": ("vggish_pca", "p.pth", _torch(lambda seed: [1, 2]), False),
    "pth-numbers": ("vggish_pca", "p.pth", _torch(lambda seed: {_EIGEN: 1, "pca_means": 2}), False),
    "pth-none": ("vggish_pca", "p.pth", _torch(lambda seed: None), False),
    "pth-as-vggish": ("vggish", "v.pth", _torch(_tensors), False),
    "pth-pickle": ("vggish", "v.pth", lambda seed: pickle.dumps(Code()), False),
    "gzip-bomb": ("openl3-mel256-music", "o.h5.gz", _bomb, False),
    "gzip-text": ("openl3-mel256-music", "o.h5.gz", lambda seed: gzip.compress(b"x"), False),
    "gzip-cut": ("openl3-mel256-music", "o.h5.gz", lambda seed: gzip.compress(b"")[:9], False),
    "gzip-none": ("openl3-mel256-music", "o.h5.gz", lambda seed: b"", False),
    "h5-text": ("openl3-mel256-music", "o.h5", lambda seed: b"\x89HDF\r\n\x1a\n" + bytes(9), False),
    "wheel-none": ("musicnn-msd", "m.whl", lambda seed: b"PK\5\6" + bytes(18), False),
    "wheel-text": ("musicnn-msd", "m.whl", lambda seed: b"no wheel", False),
    "safetensors-text": ("vggish_pca", "p.safetensors", lambda seed: b"no tensors at all", False),
    "safetensors-huge": ("vggish_pca", "p.safetensors", lambda seed: b"\xff" * 4000, False),
    "safetensors-none": ("vggish_pca", "p.safetensors", lambda seed: b"", False),
}  # fmt: skip


def cases(kit: Kit) -> Iterator[Case]:
    """Whole files of the wrong kind, and right files with damage."""
    for number, (name, (weights, file, make, good)) in enumerate(_FILES.items()):
        if not kit.quick or number % 6 == 0:
            yield Case(name, partial(_convert, weights, file, make, good, kit.seed), 60)
    whole = _npz(lambda arrays: None)
    for suffix, source in (("npz", whole), ("pth", _torch(_tensors))):
        damages = [*ANY_FILE.items(), *((f"flip-{k}", flip) for k in range(25))]
        for number, (name, damage) in enumerate(damages):
            if not kit.quick or number % 12 == 0:
                rng = kit.random("weights", suffix, name)
                case = partial(_damaged, source, damage, rng, suffix, kit.seed)
                yield Case(f"{suffix}-{name}", case, 60)


def _convert(
    weights: str, file: str, make: Callable[[int], bytes], good: bool, seed: int, folder: Path
) -> Result:
    path, target = folder / file, folder / "made.safetensors"
    path.write_bytes(make(seed))
    return _judge(weights, path, target, good, seed)


def _damaged(
    source: Callable[[int], bytes],
    damage: Callable[[bytes, random.Random], bytes],
    rng: random.Random,
    suffix: str,
    seed: int,
    folder: Path,
) -> Result:
    path = folder / f"p.{suffix}"
    path.write_bytes(damage(source(seed), rng))
    return _judge("vggish_pca", path, folder / "made.safetensors", True, seed, damaged=True)


def _judge(
    weights: str, path: Path, target: Path, good: bool, seed: int, damaged: bool = False
) -> Result:
    from safetensors.numpy import load_file

    done = call("prep", "weights", "convert", weights, path, "--output", target)
    if Path("ran-code").exists():
        return Result(WRONG, "the code in a pickle was run")
    if done.status:
        result = refused(done, str(path))
        if good and not damaged:
            return Result(WRONG, f"refused: {done.last}")
        return result
    if not good:
        return Result(WRONG, "converted, expected a refusal")
    found, truth = load_file(target), _arrays(seed)
    same = np.array_equal(found["eigen_vectors"], truth[_EIGEN]) and np.array_equal(
        found["means"], truth["pca_means"].ravel()
    )
    return Result(RIGHT) if same else Result(WRONG, "converted to other numbers")
