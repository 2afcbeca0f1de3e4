"""Resampling of features to the embedding's frames, and the four classifiers."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from featreg.datasets.base import UsageError
from featreg.train.models.base import Encoder, Tagger
from featreg.train.models.concat import Concat
from featreg.train.models.decoder import Decoder
from featreg.train.models.feature_only import FeatureOnly
from featreg.train.models.film import FiLM
from featreg.train.models.plain import Plain
from featreg.train.models.registry import FUSIONS, build_tagger
from featreg.train.models.time import to_frames

B_F, CLASSES = 5, 3


class Tiny(Encoder):
    """Four frames of three values: another architecture, in a few lines."""

    dim, sample_rate, samples, frames = 3, 100, 80, 4

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(20, self.dim)

    def forward(self, audio: Tensor) -> Tensor:
        embedding: Tensor = self.linear(audio.unflatten(1, (-1, 20)))
        return embedding


@pytest.fixture(params=FUSIONS)
def tagger(request: pytest.FixtureRequest) -> Tagger:
    torch.manual_seed(0)
    return build_tagger(request.param, Tiny(), B_F, CLASSES).eval()


@pytest.mark.parametrize(
    ("rows", "frames", "expected"),
    [
        ([1, 2, 3, 4, 5, 6], 2, [2, 5]),  # plain averages
        ([1, 2, 3, 4, 5, 6], 3, [1.5, 3.5, 5.5]),
        ([1, 2], 6, [1, 1, 1, 2, 2, 2]),  # plain repetition
        ([1, 2, 3], 3, [1, 2, 3]),
        ([0, 6, 12], 2, [2, 10]),  # the middle row counts half on both sides
        ([0, 6], 3, [0, 3, 6]),  # the middle frame sees half of each
        ([7], 4, [7, 7, 7, 7]),
        ([1, 2, 3], 1, [2]),
    ],
)
def test_resampled_frames_on_paper(rows: list[float], frames: int, expected: list[float]) -> None:
    v = torch.tensor(rows, dtype=torch.float64)[None, :, None]
    torch.testing.assert_close(to_frames(v, frames)[0, :, 0].tolist(), [float(x) for x in expected])


@given(rows=st.integers(1, 60), frames=st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_frames_equal_a_slow_loop_in_fractions(rows: int, frames: int) -> None:
    v = torch.arange(rows, dtype=torch.float64).square()
    result = to_frames(v[None, :, None], frames)[0, :, 0]
    for k in range(frames):
        mean = Fraction(0)
        for i in range(rows):
            overlap = min(Fraction(i + 1, rows), Fraction(k + 1, frames)) - max(
                Fraction(i, rows), Fraction(k, frames)
            )
            mean += max(overlap, Fraction(0)) * frames * i**2
        assert float(result[k]) == pytest.approx(float(mean), rel=1e-12, abs=1e-12)
    assert float(result.mean()) == pytest.approx(float(v.mean()), rel=1e-12)


def test_frames_of_clips_and_dimensions_are_independent() -> None:
    v = torch.randn(2, 6, 3)
    torch.testing.assert_close(to_frames(v, 2)[1, :, 2], v[1, :, 2].view(2, 3).mean(dim=1))


def test_frames_have_the_right_gradient() -> None:
    v = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: to_frames(x, 3), (v,))


def test_decoder_is_the_published_one() -> None:
    decoder = Decoder(4, CLASSES).eval()
    frames = torch.randn(2, 7, 4)
    hidden = frames.max(dim=1).values @ decoder.fc_1.weight.T + decoder.fc_1.bias
    hidden = torch.relu(hidden / (1 + decoder.bn.eps) ** 0.5)  # as batch norms start
    logits = hidden @ decoder.fc_2.weight.T + decoder.fc_2.bias
    torch.testing.assert_close(decoder(frames), logits)
    torch.testing.assert_close(decoder(frames.flip(1)), logits)
    assert decoder.fc_1.out_features == 256
    assert decoder.dropout.p == 0.5


def test_tagger_keeps_its_contract(tagger: Tagger) -> None:
    audio, features = torch.randn(2, Tiny.samples), torch.randn(2, 9, B_F)
    output = tagger(
        audio if tagger.needs_audio else None, features if tagger.needs_features else None
    )
    assert output.logits.shape == (2, CLASSES)
    assert output.embedding.shape[:2] == (2, Tiny.frames)
    # what it does not need it does not look at, and what it needs it does
    for other_audio, other_features in ((audio + 1, features), (audio, features + 1)):
        changed = not torch.equal(tagger(other_audio, other_features).logits, output.logits)
        looked_at = tagger.needs_features if other_audio is audio else tagger.needs_audio
        assert changed == looked_at


def test_missing_inputs_are_named(tagger: Tagger) -> None:
    audio, features = torch.randn(2, Tiny.samples), torch.randn(2, 9, B_F)
    if tagger.needs_features:
        with pytest.raises(ValueError, match="features"):
            tagger(audio, None)
    if tagger.needs_audio:
        with pytest.raises(ValueError, match="audio"):
            tagger(None, features)


def test_only_fusion_needs_features_and_only_features_need_no_audio() -> None:
    built = {name: build_tagger(name, Tiny(), B_F, CLASSES) for name in FUSIONS}
    assert [name for name, tagger in built.items() if not tagger.needs_features] == ["none"]
    assert [name for name, tagger in built.items() if not tagger.needs_audio] == ["features"]


def test_fused_classifiers_return_the_encoders_embedding() -> None:
    audio, features = torch.randn(2, Tiny.samples), torch.randn(2, 9, B_F)
    encoder = Tiny()
    for tagger in (
        Plain(encoder, CLASSES),
        Concat(encoder, B_F, CLASSES),
        FiLM(encoder, B_F, CLASSES),
    ):
        assert torch.equal(tagger(audio, features).embedding, encoder(audio))


def test_film_with_one_and_zero_is_plain() -> None:
    audio, features = torch.randn(2, Tiny.samples), torch.randn(2, 9, B_F)
    plain = Plain(Tiny(), CLASSES).eval()
    film = FiLM(plain.encoder, B_F, CLASSES).eval()
    film.decoder = plain.decoder
    for linear, value in ((film.gamma, 1.0), (film.beta, 0.0)):
        nn.init.zeros_(linear.weight)
        nn.init.constant_(linear.bias, value)
    assert torch.equal(film(audio, features).logits, plain(audio).logits)


def test_film_scales_and_shifts_by_maps_of_the_features() -> None:
    audio, features = torch.randn(2, Tiny.samples), torch.randn(2, Tiny.frames, B_F)
    film = FiLM(Tiny(), B_F, CLASSES).eval()
    modulated = film.gamma(features) * film.encoder(audio) + film.beta(features)
    assert torch.equal(film(audio, features).logits, film.decoder(modulated))


def test_concat_without_weight_on_the_features_is_plain() -> None:
    audio, features = torch.randn(2, Tiny.samples), torch.randn(2, 9, B_F)
    plain = Plain(Tiny(), CLASSES).eval()
    concat = Concat(plain.encoder, B_F, CLASSES).eval()
    with torch.no_grad():
        concat.decoder.fc_1.weight[:, : Tiny.dim] = plain.decoder.fc_1.weight
        concat.decoder.fc_1.weight[:, Tiny.dim :] = 0
        concat.decoder.fc_1.bias.copy_(plain.decoder.fc_1.bias)
    concat.decoder.fc_2 = plain.decoder.fc_2
    torch.testing.assert_close(concat(audio, features).logits, plain(audio).logits)


def test_feature_only_is_the_decoder_on_the_features() -> None:
    features = torch.randn(2, 8, B_F)
    tagger = FeatureOnly(4, B_F, CLASSES).eval()
    averaged = features.view(2, 4, 2, B_F).mean(dim=2)
    torch.testing.assert_close(tagger(None, features).logits, tagger.decoder(averaged))


def test_autocast_is_near_float32(tagger: Tagger) -> None:
    audio, features = torch.randn(2, Tiny.samples), torch.randn(2, 9, B_F)
    precise = tagger(audio, features).logits
    with torch.autocast("cpu", torch.bfloat16):
        rough = tagger(audio, features).logits.float()
    # bfloat16 has 8 bits, and rounds about five times on the way
    assert (rough - precise).abs().max() < 0.05 * precise.abs().max()


def test_unknown_fusion_is_named() -> None:
    with pytest.raises(UsageError, match=r"'sum' .*none, features, concat, film"):
        build_tagger("sum", Tiny(), B_F, CLASSES)


def test_names_do_not_import_torch() -> None:
    code = (
        "import sys, featreg.train.models.registry, featreg.train.regularizers.registry;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
