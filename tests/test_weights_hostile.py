"""Weight files that hold something else: one line that names file and array, little memory."""

from __future__ import annotations

import gzip
import io
import os
import re
import tracemalloc
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import save_file
from weight_files import OPENL3, openl3_layers, pca, write_keras, write_pca

from featreg.extract.cli.weights import weights as command

pytest_plugins = ("weight_fixtures",)
pytestmark = pytest.mark.usefixtures("own_cache")


def refused(name: str, file: Path) -> str:
    """The one line with which a conversion is refused; nothing may be written."""
    target = file.with_name("converted.safetensors")
    result = CliRunner().invoke(command, ["convert", name, str(file), "--output", str(target)])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert not target.exists()
    (line,) = [each for each in result.stderr.splitlines() if each.startswith("error: ")]
    assert str(file) in line
    return line


VECTORS = "pca_eigen_vectors"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda array: np.full(array.shape, "x"), "eigen_vectors.*<U1"),
        (lambda array: np.full(array.shape, b"x"), r"eigen_vectors.*\|S1"),
        (lambda array: array.astype(object), "Object arrays"),
        (lambda array: array + 1j, "eigen_vectors.*complex"),
        (lambda array: array > 0, "eigen_vectors.*bool"),
        (lambda array: np.where(array > 0.01, np.nan, array), "eigen_vectors.*not finite"),
        (lambda array: np.where(array > 0.01, -np.inf, array), "eigen_vectors.*not finite"),
        (lambda array: np.full(array.shape, 1e39), "eigen_vectors.*16,384 of 16,384"),
        (lambda array: array[0], r"eigen_vectors.*\(128, 128\).*\(128,\)"),
        (lambda array: np.float32(1), r"eigen_vectors.*\(128, 128\).*\(\)"),
        (lambda array: np.zeros((0, 128)), r"eigen_vectors.*\(128, 128\).*\(0, 128\)"),
        (
            lambda array: np.zeros(array.shape, [("a", "f4"), ("b", "f4")]),
            "eigen_vectors.*numbers",
        ),
        (lambda array: np.zeros(array.shape, "M8[s]"), "eigen_vectors.*datetime"),
    ],
)
def test_a_numpy_array_that_is_no_weight_is_named(
    change: Any, found: str, tmp_path: Path, seeded: ModuleType
) -> None:
    arrays = pca(seeded)
    path = write_pca(tmp_path, {**arrays, VECTORS: change(arrays[VECTORS])})
    assert re.search(found, refused("vggish_pca", path))


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "uint8", "longdouble"])
def test_numbers_of_other_types_are_converted(
    dtype: str, tmp_path: Path, seeded: ModuleType
) -> None:
    path = write_pca(tmp_path, {key: each.astype(dtype) for key, each in pca(seeded).items()})
    target = str(tmp_path / "out.safetensors")
    result = CliRunner().invoke(command, ["convert", "vggish_pca", str(path), "--output", target])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "list"),
        (torch.zeros(3), "Tensor"),
        ({"state_dict": {"features.0.weight": torch.zeros(1)}}, "features.0.weight"),
        ({"features.0.weight": "text"}, r"features.0.weight"),
        ({}, "features.0.weight"),
    ],
)
def test_a_torch_file_of_something_else_is_named(content: Any, found: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "own.pth")
    assert found in refused("vggish", tmp_path / "own.pth")


def test_a_torch_array_that_is_not_finite_is_named(tmp_path: Path, seeded: ModuleType) -> None:
    state = {key: torch.from_numpy(each) for key, each in pca(seeded).items()}
    state["pca_means"][5] = torch.nan
    torch.save(state, tmp_path / "own.pth")
    assert "means: 1 of 128 values" in refused("vggish_pca", tmp_path / "own.pth")


def test_a_keras_array_that_is_not_finite_is_named(tmp_path: Path, seeded: ModuleType) -> None:
    layers = openl3_layers(seeded, "mel256")
    kernel = next(each for key, each in layers[5][1].items() if "kernel" in key)
    kernel[0, 0, 0, 0] = np.inf
    line = refused(OPENL3, write_keras(tmp_path / "own.h5", layers))
    assert "conv1.weight: 1 of " in line


def test_keras_arrays_of_text_are_named(tmp_path: Path, seeded: ModuleType) -> None:
    layers: Any = openl3_layers(seeded, "mel256")
    key = next(key for key in layers[5][1] if "kernel" in key)
    layers[5][1][key] = np.full(layers[5][1][key].shape, b"text")
    assert "conv1.weight" in refused(OPENL3, write_keras(tmp_path / "own.h5", layers))


@pytest.mark.parametrize("kind", ["F16", "I32", "nan"])
def test_a_safetensors_file_of_other_numbers_is_refused_when_it_is_read(
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    messages: pytest.LogCaptureFixture,
) -> None:
    arrays: dict[str, Any] = {"eigen_vectors": np.eye(128, dtype="f4")}
    arrays["means"] = np.zeros(128, "f4")
    if kind == "nan":
        arrays["means"][7] = np.nan
    else:
        arrays["means"] = arrays["means"].astype({"F16": "f2", "I32": "i4"}[kind])
    path = tmp_path / "vggish_pca.safetensors"
    save_file(arrays, path)
    monkeypatch.setenv("FEATREG_WEIGHTS", str(tmp_path))
    for words in (["convert", "vggish_pca", str(path)], ["verify", "vggish_pca"]):
        result = CliRunner().invoke(command, words)
        assert result.exit_code == 1, result.output
        said = result.stderr + messages.text
        assert "means" in said
        assert ("not finite" if kind == "nan" else kind) in said
        assert "Traceback" not in said
        messages.clear()


@pytest.mark.parametrize("facts", ["[1]", "{", '{"weights": "x"}', "7"])
def test_odd_words_in_a_header_are_one_line(
    facts: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    messages: pytest.LogCaptureFixture,
) -> None:
    arrays = {"eigen_vectors": np.eye(128, dtype="f4"), "means": np.zeros(128, "f4")}
    save_file(arrays, tmp_path / "vggish_pca.safetensors", {"featreg": facts})
    monkeypatch.setenv("FEATREG_WEIGHTS", str(tmp_path))
    result = CliRunner().invoke(command, ["verify", "vggish_pca"])
    assert result.exit_code == 1
    assert "vggish_pca.safetensors" in messages.text
    assert "Traceback" not in result.output + messages.text


# More than there should be


def peak_of_refusal(name: str, path: Path) -> int:
    """Most bytes of Python's that a refused conversion takes."""
    refused(name, path)  # what is imported once is not counted
    tracemalloc.start()
    line = refused(name, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "expected at most" in line
    return peak


def test_a_gzip_file_is_unpacked_as_far_as_weights_go(tmp_path: Path) -> None:
    bomb = tmp_path / "openl3.h5.gz"
    with gzip.open(bomb, "wb", 1) as file:
        for _ in range(64):
            file.write(bytes(1 << 23))  # 512 MB in all
    assert bomb.stat().st_size < 4e6
    # The network's 4.7 million float32 numbers, four times, and 16 MB: 92 MB, and a copy.
    assert peak_of_refusal(OPENL3, bomb) < 2.2e8


def test_an_hdf5_file_may_declare_no_more_than_it_should_hold(
    tmp_path: Path, seeded: ModuleType
) -> None:
    layers = openl3_layers(seeded, "mel256")
    path = write_keras(tmp_path / "own.h5", layers)
    with h5py.File(path, "a") as file:
        name = layers[1][0]
        key = next(iter(layers[1][1]))
        del file[name][key]
        file[name].create_dataset(key, (1 << 33,), "f4", chunks=(1 << 20,))
    assert path.stat().st_size < 4e7
    assert peak_of_refusal(OPENL3, path) < 1e8


@pytest.mark.parametrize(("name", "suffix"), [("vggish_pca", ".npz"), ("vggish_pca", ".pth")])
def test_a_zip_archive_is_measured_before_it_is_unpacked(
    name: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"own{suffix}"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 26,)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("pca_means.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(32):
            member.write(bytes(1 << 23))
    assert path.stat().st_size < 1e6
    assert peak_of_refusal(name, path) < 3e7


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    assert "pipe.npz" in refused("vggish_pca", tmp_path / "pipe.npz")


def test_a_flipped_bit_of_a_torch_file_is_found_by_its_checksum(
    seeded: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "pca.pth"
    torch.save({key: torch.from_numpy(value) for key, value in pca(seeded).items()}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # within the eigenvectors
    path.write_bytes(data)
    assert "checksum" in refused("vggish_pca", path)
