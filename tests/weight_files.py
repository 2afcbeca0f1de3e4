"""Weight files in their published formats, with seeded numbers in them."""

from __future__ import annotations

import dataclasses
import gzip
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file

from featreg.datasets.collections.fetch import Checksum
from featreg.extract.weights.registry import WEIGHTS

Array = npt.NDArray[Any]

OPENL3 = "openl3-mel256-music"
PCA_FILE = "vggish_pca_params.npz"
OPENL3_FILE = "openl3_audio_mel256_music-v0_4_0.h5.gz"

# OpenL3's convolutions, (in, out) channels in network order.
OPENL3_CHANNELS = [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
OPENL3_CHANNELS += [(256, 512), (512, 512)]


def openl3_layers(seeded: ModuleType, representation: str) -> list[tuple[str, dict[str, Array]]]:
    """Layers as Keras names and orders them, with counters as they come, some without weights."""
    layers: list[tuple[str, dict[str, Array]]] = [("input_1", {})]
    for i, (inputs, outputs) in enumerate(OPENL3_CHANNELS):
        prefix = f"openl3/{representation}"
        norm = seeded.batch_norm(f"{prefix}/bn{i}", inputs)
        keys = {"gamma": "gamma", "beta": "beta"}
        keys |= {"moving_mean": "mean", "moving_variance": "variance"}
        # The counter goes on from another model in the same session: 9, 10, ...
        layer = f"batch_normalization_{i + 9}"
        layers.append((layer, {f"{layer}/{key}:0": norm[name] for key, name in keys.items()}))
        layer = f"conv2d_{i + 8}"
        kernel = seeded.kernel(f"{prefix}/conv{i}/kernel", (3, 3, inputs, outputs))
        bias = seeded.array(f"{prefix}/conv{i}/bias", (outputs,), 0.1)
        layers.append((layer, {f"{layer}/kernel:0": kernel, f"{layer}/bias:0": bias}))
        layers.append((f"activation_{i}", {}))
    return layers


def write_keras(path: Path, layers: list[tuple[str, Mapping[str, Array]]]) -> Path:
    """A file as Keras 2 `save_weights` writes it; in gzip if its name says so."""
    plain = path.with_suffix(".tmp")
    with h5py.File(plain, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer, _ in layers]
        for layer, arrays in layers:
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([key.encode() for key in arrays], dtype="S")
            for key, values in arrays.items():
                group[key] = values
    content = plain.read_bytes()
    plain.unlink()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def pca(seeded: ModuleType) -> dict[str, Array]:
    """VGGish's PCA under the names of the published archive."""
    return {
        "pca_eigen_vectors": seeded.array("vggish/pca/eigen_vectors", (128, 128), 0.1),
        "pca_means": seeded.array("vggish/pca/means", (128, 1), 0.1),
    }


def write_pca(folder: Path, arrays: dict[str, Array]) -> Path:
    """A numpy archive, as VGGish's PCA was published."""
    np.savez(folder / "own.npz", **arrays)
    return folder / "own.npz"


def write_musicnn_wheel(path: Path, folders: Mapping[str, Path]) -> Path:
    """The published wheel, as far as it is read: a folder of checkpoint files per model."""
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("musicnn/__init__.py", "")
        for model, folder in folders.items():
            for file in folder.iterdir():
                wheel.write(file, f"musicnn/{model}/{file.name}")
    return path


def assert_pca(path: Path, seeded: ModuleType) -> None:
    """Assert that a safetensors file holds the seeded PCA."""
    arrays = load_file(path)
    expected = pca(seeded)
    np.testing.assert_array_equal(arrays["eigen_vectors"], expected["pca_eigen_vectors"])
    np.testing.assert_array_equal(arrays["means"], expected["pca_means"][:, 0])


def publish(monkeypatch: pytest.MonkeyPatch, name: str, checksum: Checksum) -> None:
    """Let the known hash of the first published file of `name` be `checksum`."""
    known = WEIGHTS[name]
    first = dataclasses.replace(known.published[0], checksum=checksum)
    changed = dataclasses.replace(known, published=(first, *known.published[1:]))
    monkeypatch.setitem(WEIGHTS, name, changed)
