"""Augmentation: gain and mixup in closed form, masks of the spectrogram, and exact resuming."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lives import live, start
from safetensors.torch import load_file
from toy_runs import CONREG

from featreg.datasets.base import UsageError
from featreg.train.data.augment import Augmentation, mixed
from featreg.train.data.crops import Batch
from featreg.train.models.mask import mask_spectrogram, masked
from featreg.train.models.registry import ENCODERS, build_encoder
from featreg.train.training.run_dir import RunDir

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

KEYS = [(3, clip) for clip in (5, 0, 9, 2, 11, 12)]


def batch(clips: int = 6) -> Batch:
    """Clip k has the audio k + 1, the features 10 (k + 1), and the class k % 3."""
    number = torch.arange(1.0, clips + 1)
    label = torch.nn.functional.one_hot(torch.arange(clips) % 3, 3).float()
    audio, features = number[:, None].expand(clips, 4), number[:, None, None].expand(clips, 2, 5)
    index = torch.arange(clips)
    return Batch(audio.clone(), 10 * features, label, torch.ones(clips, 3), index)


def test_nothing_changes_without_augmentation() -> None:
    augmented = Augmentation(seed=0)(batch(), KEYS)
    assert all(torch.equal(*pair) for pair in zip(augmented, batch(), strict=True))


def test_gain_is_uniform_in_decibels_and_changes_audio_alone() -> None:
    gains = []
    for epoch in range(100):
        keys = [(epoch, clip) for _, clip in KEYS]
        augmented = Augmentation(seed=0, gain=6.0)(batch(), keys)
        ratio = augmented.audio / batch().audio
        assert (ratio == ratio[:, :1]).all()  # one factor for a crop
        gains += (20 * ratio[:, 0].log10()).tolist()
        assert torch.equal(augmented.features, batch().features)
        assert torch.equal(augmented.label, batch().label)
    assert max(map(abs, gains)) <= 6.0001
    # Of 600 uniform numbers, the mean has a standard deviation of 12 / sqrt(12 * 600) = 0.14 dB.
    assert abs(np.mean(gains)) < 0.6
    assert np.std(gains) == pytest.approx(12 / np.sqrt(12), rel=0.1)


def test_the_gain_of_a_crop_depends_on_its_seed_and_key_alone() -> None:
    augment = Augmentation(seed=1, gain=6.0)
    whole = augment(batch(), KEYS).audio
    parts = batch()._replace(audio=batch().audio[2:])
    assert torch.equal(augment(parts, KEYS[2:]).audio, whole[2:])
    assert not torch.equal(Augmentation(seed=2, gain=6.0)(batch(), KEYS).audio, whole)


def test_mixup_in_closed_form() -> None:
    one = batch(3)._replace(label_mask=torch.tensor([[1.0, 1, 1], [1, 0, 1], [0, 1, 1]]))
    found = mixed(one, torch.tensor([1, 2, 2]), torch.tensor([0.75, 0.5, 0.25]))
    assert found.audio[:, 0].tolist() == [0.75 * 1 + 0.25 * 2, 0.5 * 2 + 0.5 * 3, 3]
    assert found.features[:, 1, 4].tolist() == [12.5, 25, 30]
    assert found.label.tolist() == [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 1]]
    # A label counts where both clips have it.
    assert found.label_mask.tolist() == [[1, 0, 1], [0, 0, 1], [0, 1, 1]]


def test_mixup_keeps_labelled_and_unlabelled_clips_apart() -> None:
    pairs = set()
    for epoch in range(50):
        one = batch()
        one.label_mask[4:] = 0
        keys = [(epoch, clip) for _, clip in KEYS]
        found = Augmentation(seed=0, mixup=0.4, unlabelled=2)(one, keys)
        assert found.label_mask.tolist() == [[1, 1, 1]] * 4 + [[0, 0, 0]] * 2
        # Clips 1 to 4 are labelled: a mixture of them is at most 4, of the others at least 5.
        assert found.audio[:4].max() < 4.01
        assert found.audio[4:].min() > 4.99
        torch.testing.assert_close(found.features, 10 * found.audio[:, :1, None].expand(6, 2, 5))
        torch.testing.assert_close(found.label.sum(dim=1), torch.ones(6))
        pairs.add(tuple(found.audio[:, 0].tolist()))
    assert len(pairs) == 50
    again = Augmentation(seed=0, mixup=0.4, unlabelled=2)(batch(), keys)
    assert torch.equal(again.audio, found.audio)


def test_a_mask_is_one_band_and_one_interval_of_each_clip() -> None:
    torch.manual_seed(0)
    widths: list[list[int]] = [[], []]
    for _ in range(50):
        found = masked(torch.ones(4, 3, 10, 20), 0.3)
        assert set(found.unique().tolist()) <= {0.0, 1.0}
        assert (found == found[:, :1]).all()  # the same for all channels
        for clip in found[:, 0]:
            rows, columns = (clip.amax(dim=axis) == 0 for axis in (1, 0))
            for hidden, sizes in zip((rows, columns), widths, strict=True):
                places = hidden.nonzero().flatten()
                sizes.append(len(places))
                assert len(places) == 0 or places[-1] - places[0] + 1 == len(places)
            # Nothing but the band and the interval is masked.
            assert (clip == 0).sum() == 200 - (10 - rows.sum()) * (20 - columns.sum())
    assert set(widths[0]) == {0, 1, 2, 3}  # 0.3 of 10 frequencies
    assert set(widths[1]) == set(range(7))  # and of 20 frames


def test_a_mask_of_everything_and_of_nothing() -> None:
    ones = torch.ones(2, 1, 4, 4)
    assert torch.equal(masked(ones, 0.0), ones)
    torch.manual_seed(0)
    assert any(masked(ones, 1.0).sum() == 0 for _ in range(100))


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_is_masked_in_training_alone(name: str) -> None:
    encoder = build_encoder(name, width=8, samples=48000)
    mask_spectrogram(encoder, 0.5)
    found: list[torch.Tensor] = []
    encoder.front.register_forward_hook(lambda *given: found.append(given[2]))
    audio = torch.randn(2, 48000)
    for mode in (True, False):
        torch.manual_seed(3)
        encoder.train(mode)(audio)
    hidden = [(each[:, 0] == 0).all(dim=1).any(dim=1) for each in found]
    assert hidden[0].any()
    assert not hidden[1].any()


def test_an_encoder_without_a_front_end_is_named() -> None:
    with pytest.raises(UsageError, match=r"--mask 0\.2: Identity has no attribute `front`"):
        mask_spectrogram(torch.nn.Identity(), 0.2)  # type: ignore[arg-type]


def test_an_augmented_run_resumes_exactly(work: Path) -> None:
    recipe = dataclasses.replace(
        CONREG.recipe, batch_size=2, mixup=0.3, mask=0.2, gain=6.0, label_smoothing=0.1,
        class_weights=True,
    )  # fmt: skip
    config = dataclasses.replace(
        CONREG, reg="hint", label_fraction=0.5, unlabelled_batch=3, recipe=recipe
    )
    for name, deaths in (("whole", [0]), ("killed", [2, 4, 0])):
        for count in deaths:
            process = start(live, work, config.to_json(), name, "step", count, 0.0)
            process.join(120)
            assert process.exitcode == (-9 if count else 0)
    whole, killed = (RunDir(work / "runs" / name) for name in ("whole", "killed"))
    assert whole.config() == config
    curves = [
        pd.read_csv(run.path / "metrics.csv").drop(columns="seconds") for run in (whole, killed)
    ]
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    weights = [load_file(run.path / "model.safetensors") for run in (whole, killed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
