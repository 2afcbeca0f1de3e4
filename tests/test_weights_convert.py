"""Published weight files become safetensors files: equal bytes, or one line that says why not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from weight_files import OPENL3, OPENL3_FILE, openl3_layers, pca, write_keras, write_pca

from featreg.datasets.base import FeatregError
from featreg.extract.weights import convert as conversion
from featreg.extract.weights.cache import cache, locate
from featreg.extract.weights.self_check import vggish_self_check

pytest_plugins = ("weight_fixtures",)
pytestmark = pytest.mark.usefixtures("own_cache")


def test_the_same_source_gives_the_same_bytes(tmp_path: Path, seeded: ModuleType) -> None:
    # Shards record the hash of the converted file: it must not depend on machine or time.
    source = write_pca(tmp_path, pca(seeded))
    script = (
        "import sys; from pathlib import Path; "
        "from featreg.extract.weights.convert import convert; "
        "convert('vggish_pca', Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    for name, hash_seed in (("a", "1"), ("b", "2")):
        subprocess.run(
            [sys.executable, "-c", script, str(source), str(tmp_path / name)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_wrong_shape_names_the_variable_and_both_shapes(
    tmp_path: Path, seeded: ModuleType
) -> None:
    wrong = pca(seeded) | {"pca_eigen_vectors": np.zeros((64, 128), np.float32)}
    with pytest.raises(FeatregError, match=r"eigen_vectors.*\(128, 128\).*\(64, 128\)"):
        locate("vggish_pca", {"vggish_pca": write_pca(tmp_path, wrong)})


def test_a_missing_variable_is_named(tmp_path: Path, seeded: ModuleType) -> None:
    arrays = pca(seeded)
    del arrays["pca_means"]
    with pytest.raises(FeatregError, match=r"own\.npz: .*pca_means"):
        locate("vggish_pca", {"vggish_pca": write_pca(tmp_path, arrays)})


def test_a_wrong_openl3_kernel_is_named(tmp_path: Path, seeded: ModuleType) -> None:
    layers = openl3_layers(seeded, "mel256")
    key = next(key for key in layers[5][1] if "kernel" in key)
    layers[5][1][key] = layers[5][1][key][:, :, :32]
    with pytest.raises(FeatregError, match=r"conv.*expected.*found"):
        locate(OPENL3, {"openl3": write_keras(tmp_path / "wrong.h5", layers)})


def test_weights_of_another_network_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match="cannot be read as"):
        locate("vggish_pca", {"vggish_pca": files / OPENL3_FILE})
    save_file({"means": np.zeros(128, "f4")}, tmp_path / "half.safetensors")
    with pytest.raises(FeatregError, match=r"eigen_vectors: expected.*it is missing"):
        locate("vggish_pca", {"vggish_pca": tmp_path / "half.safetensors"})
    (tmp_path / "no.safetensors").write_bytes(b"{}")
    with pytest.raises(FeatregError, match="cannot be read as a safetensors file"):
        locate("vggish_pca", {"vggish_pca": tmp_path / "no.safetensors"})


def test_torchvggish_weights_are_read_without_tensorflow(
    tmp_path: Path, seeded: ModuleType
) -> None:
    # Expanded zeros: the file is small, the arrays have their true shapes.
    shapes = conversion.layout("vggish")
    state = {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}
    torch.save(state, tmp_path / "own.pth")
    path = locate("vggish", {"vggish": tmp_path / "own.pth"})
    assert {key: values.shape for key, values in load_file(path).items()} == shapes
    # Zeros are not what the self-check was published for: it runs them, and says so.
    means = locate("vggish_pca", {"vggish_pca": write_pca(tmp_path, pca(seeded))})
    with pytest.raises(FeatregError, match="raw: mean 0, deviation 0; published"):
        vggish_self_check(path, means)
    # 72,141,184 parameters: Table II of the paper counts them.
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 72_141_184


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, seeded: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion.os, "fsync", full)
    with pytest.raises(FeatregError, match=r"cannot write .*No space left"):
        locate("vggish_pca", {"vggish_pca": write_pca(tmp_path, pca(seeded))})
    assert list(cache().iterdir()) == []


def test_the_original_vggish_checkpoint_is_read(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow").compat.v1
    channels = {"conv1": (1, 64), "conv2": (64, 128), "conv3/conv3_1": (128, 256)}
    channels |= {"conv3/conv3_2": (256, 256), "conv4/conv4_1": (256, 512)}
    channels |= {"conv4/conv4_2": (512, 512)}
    shapes = {name: (3, 3, *pair) for name, pair in channels.items()}
    shapes |= {"fc1/fc1_1": (12288, 4096), "fc1/fc1_2": (4096, 4096), "fc2": (4096, 128)}
    path = tmp_path / "vggish_model.ckpt"
    with tf.Graph().as_default(), tf.Session() as session:
        for number, (name, shape) in enumerate(shapes.items()):
            fill = tf.constant_initializer(number)
            tf.get_variable(f"vggish/{name}/weights", shape, initializer=fill)
            tf.get_variable(f"vggish/{name}/biases", shape[-1], initializer=fill)
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(write_version=1)
        saver.save(session, str(path), write_meta_graph=False, write_state=False)
    arrays = load_file(locate("vggish", {"vggish": path}))
    keys = [f"features.{i}" for i in (0, 3, 6, 8, 11, 13)] + [f"embeddings.{i}" for i in (0, 2, 4)]
    for number, key in enumerate(keys):
        assert (arrays[f"{key}.weight"] == number).all()
        assert (arrays[f"{key}.bias"] == number).all()
