"""YAMNet, a LiteRT file, as a feature: its inner tensor, and what cannot be asked for."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import featreg
from featreg.datasets.base import UsageError

interpreter = pytest.importorskip("ai_edge_litert.interpreter")

INNER = "global_average_pooling2d/Mean"


@pytest.fixture
def yamnet(shared: Path) -> Path:
    return shared / "weights" / "yamnet.tflite"


@pytest.mark.parametrize("output", [INNER, "Identity"])
def test_yamnet_gives_what_it_gives_alone(yamnet: Path, output: str) -> None:
    extractor = featreg.load_extractor(f"yam=tflite:{yamnet}", rate=16000, hop=0.48, output=output)
    assert (extractor.dim, extractor.hop_s) == (1024 if output == INNER else 521, 0.48)
    signal = 0.1 * np.random.default_rng(0).standard_normal(40000).astype(np.float32)
    embeddings, times = extractor(signal, 16000)
    np.testing.assert_allclose(times, 0.4875 + 0.48 * np.arange(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = interpreter.Interpreter(str(yamnet), experimental_preserve_all_tensors=True)
    model.allocate_tensors()
    (index,) = (t["index"] for t in model.get_tensor_details() if t["name"].endswith(output))
    padded = np.pad(signal, (0, 15600))
    for k, embedding in enumerate(embeddings):
        model.set_tensor(0, padded[None, 7680 * k : 7680 * k + 15600])
        model.invoke()
        np.testing.assert_allclose(embedding, model.get_tensor(index)[0], atol=1e-5)
    assert embeddings.std(axis=0).max() > 0.01


def test_what_cannot_be_asked_for_is_one_line(yamnet: Path, tmp_path: Path) -> None:
    (tmp_path / "text.tflite").write_text("not a model")
    for path, settings, words in [
        (yamnet, {"rate": 16000}, "several outputs; .* one of Identity, Identity_1"),
        (yamnet, {"rate": 16000, "output": "no/Mean"}, "has no output 'no/Mean'; .*Identity, "),
        (yamnet, {"output": INNER}, "does not say its sample rate"),
        (yamnet, {"rate": 16000, "window": 1.0, "output": INNER}, r"15600 samples, 0\.975 s"),
        (tmp_path / "text.tflite", {"rate": 16000}, r"text\.tflite cannot be opened"),
    ]:
        with pytest.raises(UsageError, match=words):
            featreg.load_extractor(f"x=tflite:{path}", **settings)  # type: ignore[arg-type]
