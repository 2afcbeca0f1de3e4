"""EfficientAT's published state dicts: what is read, what is refused, what is recorded."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from file_server import FileServer
from safetensors.numpy import load_file

from featreg.datasets.base import FeatregError
from featreg.extract.extractors.efficientat import EfficientAT, EfficientATConfig
from featreg.extract.extractors.efficientat_network import WIDTHS, Model, Network
from featreg.extract.weights.cache import is_here, locate
from featreg.extract.weights.convert import check_content, convert
from featreg.extract.weights.layouts import layout
from featreg.extract.weights.registry import WEIGHTS

pytest_plugins = ["weight_fixtures"]

# Of mn04 as its authors count them; of the others in millions, as their paper prints them.
PARAMETERS: dict[Model, float] = {
    "mn04": 983_599e-6,
    "mn05": 1.43,
    "mn10": 4.88,
    "mn20": 17.91,
    "mn30": 39.09,
    "mn40": 68.43,
}


def state_dict(width: float = 0.4) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Network(width).state_dict()


@pytest.mark.parametrize("model", WIDTHS)
def test_every_model_has_the_published_number_of_parameters(model: Model) -> None:
    shapes = layout(f"efficientat-{model}")
    statistics = (".running_mean", ".running_var")
    counted = sum(
        int(np.prod(shape)) for key, shape in shapes.items() if not key.endswith(statistics)
    )
    if model == "mn04":
        assert counted == 983_599
    assert counted == pytest.approx(1e6 * PARAMETERS[model], abs=5e3)
    assert EfficientAT(EfficientATConfig(model=model), {}).dim == shapes["classifier.2.weight"][1]
    (name,) = EfficientAT.weight_names(EfficientATConfig(model=model))
    assert WEIGHTS[name].licence == "MIT"


def test_a_state_dict_is_read_and_counters_of_batches_are_left_out(tmp_path: Path) -> None:
    state = state_dict()
    torch.save(state, tmp_path / "mn04.pt")
    convert("efficientat-mn04", tmp_path / "mn04.pt", tmp_path / "mn04.safetensors")
    found = load_file(tmp_path / "mn04.safetensors")
    assert {key: values.shape for key, values in found.items()} == layout("efficientat-mn04")
    for key, values in found.items():
        np.testing.assert_array_equal(values, state[key].numpy())


def test_another_model_is_refused_and_named(tmp_path: Path) -> None:
    torch.save(state_dict(0.5), tmp_path / "mine.pt")
    with pytest.raises(FeatregError, match=r"mine\.pt: efficientat-mn04: features") as refused:
        convert("efficientat-mn04", tmp_path / "mine.pt", tmp_path / "out.safetensors")
    assert "has the shapes of efficientat-mn05" in str(refused.value)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    "content", ["missing", "shape", "unknown", "infinite", "pickle", "list", "half"]
)
def test_what_does_not_fit_is_refused(content: str, tmp_path: Path) -> None:
    state: dict[str, object] = dict(state_dict())
    expected = "classifier.5.bias"
    if content == "missing":
        del state[expected]
    elif content == "shape":
        state[expected] = torch.zeros(526)
    elif content == "unknown":
        state["head.weight"] = torch.zeros(3)
        expected = "head.weight"
    elif content == "infinite":
        state[expected] = torch.full((527,), torch.inf)
    elif content == "pickle":
        state[expected], expected = Path("x"), "other types than tensors"
    file = tmp_path / "mine.pt"
    torch.save([1.0] if content == "list" else state, file)
    if content == "half":
        file.write_bytes(file.read_bytes()[:100_000])
    if content in ("half", "list"):
        expected = "mine.pt"
    with pytest.raises(FeatregError, match=expected):
        convert("efficientat-mn04", file, tmp_path / "out.safetensors")


def test_a_model_without_a_known_hash_is_fetched_and_its_hash_recorded(
    own_cache: None, server: FileServer, messages: pytest.LogCaptureFixture
) -> None:
    buffer = io.BytesIO()
    torch.save(state_dict(0.5), buffer)
    server.files["/mirror/mn05_as_mAP_443.pt"] = buffer.getvalue()
    assert not is_here("efficientat-mn05", {})
    path = locate("efficientat-mn05", {})
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    assert sha256 in messages.text
    assert check_content(path) == f"intact, converted from sha256 {sha256}"
    assert is_here("efficientat-mn05", {})
    assert locate("efficientat-mn05", {}) == path
    assert len(server.ranges) == 1


def test_the_hash_of_mn04_is_known(own_cache: None, server: FileServer) -> None:
    buffer = io.BytesIO()
    torch.save(state_dict(), buffer)
    server.files["/mirror/mn04_as_mAP_432.pt"] = buffer.getvalue()
    with pytest.raises(FeatregError, match="899a8c6217063f69"):
        locate("efficientat-mn04", {})


def test_the_published_file_of_mn04(shared: Path, own_cache: None) -> None:
    file = shared / "weights/mn04_as_mAP_432.pt"
    (published,) = WEIGHTS["efficientat-mn04"].published
    assert published.checksum is not None
    assert published.checksum.matches(file)
    path = locate("efficientat-mn04", {"efficientat": file})
    assert path.name == "efficientat-mn04-899a8c6217063f69.safetensors"
