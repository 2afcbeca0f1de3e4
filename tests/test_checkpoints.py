from __future__ import annotations

import gzip
import io
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from weight_files import openl3_layers, pca, write_keras, write_musicnn_wheel

from featreg.datasets.base import FeatregError
from featreg.extract.weights.checkpoints import (
    read_keras,
    read_musicnn,
    read_npz,
    read_tensorflow,
    read_torch,
)

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.array([1.5, -2.5], dtype=np.float64)


class Payload:
    """Runs code when it is unpickled: makes the folder `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ["a.h5", "a.h5.gz"])
def test_keras_layers_come_in_the_order_of_the_attributes(
    name: str, tmp_path: Path, seeded: ModuleType
) -> None:
    layers = openl3_layers(seeded, "mel128")[:7]
    found = read_keras(write_keras(tmp_path / name, layers))
    # conv2d_10 sorts before conv2d_8 by name, which is how HDF5 itself would list them.
    assert [layer for layer, _ in found] == [layer for layer, arrays in layers if arrays]
    for (_, arrays), (_, expected) in zip(
        found, [layer for layer in layers if layer[1]], strict=True
    ):
        for values, (_, wanted) in zip(arrays, expected.items(), strict=True):
            np.testing.assert_array_equal(values, wanted)


def test_half_a_gzip_and_half_an_hdf5_are_named(tmp_path: Path) -> None:
    path = write_keras(tmp_path / "a.h5", [("dense", {"dense/kernel:0": A})])
    packed = gzip.compress(path.read_bytes())
    (tmp_path / "half.h5.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "half.h5").write_bytes(path.read_bytes()[:1000])
    for name in ("half.h5.gz", "half.h5"):
        with pytest.raises(FeatregError, match=f"{name}: cannot be read as a Keras weight file"):
            read_keras(tmp_path / name)


def test_a_numpy_archive_of_plain_arrays(tmp_path: Path, seeded: ModuleType) -> None:
    np.savez(tmp_path / "a.npz", **pca(seeded))
    found = read_npz(tmp_path / "a.npz")
    for name, values in pca(seeded).items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("legacy", [True, False])
def test_torch_tensors_and_the_numpy_arrays_of_torchvggish(legacy: bool, tmp_path: Path) -> None:
    content = {"tensor": torch.from_numpy(A), "single": A, "double": B}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    found = read_torch(tmp_path / "a.pth")
    np.testing.assert_array_equal(found["tensor"], A)
    np.testing.assert_array_equal(found["single"], A)
    np.testing.assert_array_equal(found["double"], B)


def test_arrays_pickled_by_numpy_1_are_read(tmp_path: Path) -> None:
    # numpy 1 called the module numpy.core, numpy 2 calls it numpy._core; the pickle is
    # otherwise the same.
    buffer = io.BytesIO()
    torch.save({"a": A}, buffer, _use_new_zipfile_serialization=False)
    renamed = buffer.getvalue().replace(b"numpy._core", b"numpy.core")
    (tmp_path / "a.pth").write_bytes(renamed)
    np.testing.assert_array_equal(read_torch(tmp_path / "a.pth")["a"], A)


@pytest.mark.parametrize("form", ["torch", "torch, legacy", "pickle"])
def test_a_malicious_torch_file_runs_nothing(form: str, tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "evil.pth"
    content = {"a": torch.from_numpy(A), "evil": Payload(trap)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(FeatregError, match=r"evil\.pth.*other types"):
        read_torch(path)
    assert not trap.exists()
    # The trap does work: a bare load springs it.
    if form == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert trap.is_dir()


def test_an_object_array_cannot_carry_code(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    evil = np.empty(1, dtype=object)
    evil[0] = Payload(trap)
    np.savez(tmp_path / "evil.npz", pca_means=evil)
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Payload(trap)))
    torch.save({"a": evil}, tmp_path / "evil.pth")
    for name in ("evil.npz", "pickle.npz"):
        with pytest.raises(FeatregError, match=name):
            read_npz(tmp_path / name)
    with pytest.raises(FeatregError, match=r"evil\.pth"):
        read_torch(tmp_path / "evil.pth")
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_a_file_of_another_kind_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "page.bin"
    path.write_bytes(content)
    for read in (read_keras, read_npz, read_torch):
        with pytest.raises(FeatregError, match=r"page\.bin: cannot be read as") as error:
            read(path)
        assert "\n" not in str(error.value)


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", A)
    with pytest.raises(FeatregError, match="single"):
        read_npz(tmp_path / "a.npy")


def test_without_tensorflow_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(FeatregError, match=r"pip install '\.\[tensorflow\]'"):
        read_tensorflow(str(tmp_path / "vggish_model.ckpt"))


def write_checkpoint(prefix: Path, version: int) -> None:
    """A checkpoint of two variables, with the optimizer's slots that training leaves."""
    tf = pytest.importorskip("tensorflow").compat.v1
    with tf.Graph().as_default(), tf.Session() as session:
        weights = tf.Variable(A, name="vggish/conv1/weights")
        tf.Variable(B, name="vggish/conv1/biases")
        tf.train.AdamOptimizer().minimize(tf.reduce_sum(weights))
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(write_version=version)
        saver.save(session, str(prefix), write_meta_graph=False, write_state=False)


def test_a_tensorflow_checkpoint_of_the_first_version_is_one_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "vggish_model.ckpt", version=1)
    assert (tmp_path / "vggish_model.ckpt").is_file()
    found = read_tensorflow(str(tmp_path / "vggish_model.ckpt"))
    np.testing.assert_array_equal(found["vggish/conv1/weights"], A)
    np.testing.assert_array_equal(found["vggish/conv1/biases"], B)
    assert "vggish/conv1/weights/Adam" in found


def test_a_musicnn_folder_and_the_wheel_that_holds_it(tmp_path: Path) -> None:
    folder = tmp_path / "MSD_musicnn"
    folder.mkdir()
    write_checkpoint(folder / "x", version=2)
    for file in folder.iterdir():  # musicnn saved under an empty stem: .index, .data-...
        file.rename(folder / file.name.removeprefix("x"))
    wheel = write_musicnn_wheel(tmp_path / "musicnn.whl", {"MSD_musicnn": folder})
    for path in (folder, wheel):
        found = read_musicnn(path, "MSD_musicnn")
        np.testing.assert_array_equal(found["vggish/conv1/weights"], A)
    with pytest.raises(FeatregError, match="no folder MTT_musicnn"):
        read_musicnn(wheel, "MTT_musicnn")


def test_a_damaged_tensorflow_checkpoint_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    (tmp_path / "a.ckpt").write_bytes(b"nothing of the kind")
    for name in ("a.ckpt", "absent.ckpt"):
        with pytest.raises(FeatregError, match=f"{name}: cannot be read as a TensorFlow"):
            read_tensorflow(str(tmp_path / name))


def test_a_wheel_that_is_no_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"no zip")
    with pytest.raises(FeatregError, match=r"a\.whl: cannot be read as the musicnn wheel"):
        read_musicnn(tmp_path / "a.whl", "MSD_musicnn")
