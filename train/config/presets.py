"""Presets: settings of model and training that belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NORMS = ("none", "center", "standardize")
"""Normalizations of the features: mean 0 (center), also standard deviation 1 (standardize)."""


OFF = ("mixup", "mask", "gain", "label_smoothing", "class_weights")
"""Settings that are off unless a preset or an option turns them on."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of model and training that a preset determines.

    Attributes
    ----------
    encoder
        A name in ``models.registry.ENCODERS``.
    width
        Number of channels of the encoder's first blocks.
    encoder_options
        Further keyword arguments of the encoder.
    crop_s
        Length of training crops and evaluation chunks, in seconds.
    batch_size
        Number of clips per batch and device.
    schedule
        A name in ``schedule.SCHEDULES``.
    epochs
        Total number of epochs, after each of which the model is validated.
    epoch_steps
        Minimum number of training steps of an epoch. If one pass over the training clips has
        fewer, an epoch consists of several.
    lr
        Base learning rate, by which the rates of the schedule's stages are multiplied.
    clip_norm
        Maximum norm of the gradient; 0 disables clipping.
    patience
        Number of epochs without a better validation metric after which training stops; 0
        disables early stopping.
    chunks
        Number of evaluation chunks per clip, whose probabilities are averaged.
    feature_norm
        A name in `NORMS`: how the features are normalized over the training clips. The paper does
        not normalize them.
    precision
        ``float32``, ``bf16-mixed`` or ``auto``, which is ``bf16-mixed`` if the hardware
        supports bfloat16.
    mixup
        Parameter of the Beta distribution of mixup, see `data.augment`; 0 disables it.
    mask
        Maximum width of the masks of the spectrogram, as a fraction of all frequencies and
        frames, see `models.mask`; 0 disables them.
    gain
        Maximum random gain and attenuation of the audio, in dB; 0 disables both.
    label_smoothing
        Share of the uniform distribution in the targets, see `training.objective`.
    class_weights
        Whether rare classes have a greater weight in the loss, see `training.objective`.
    """

    encoder: str = "harmonic_cnn"
    width: int = 128
    encoder_options: Mapping[str, Any] = field(default_factory=dict)
    crop_s: float = 5.0
    batch_size: int = 16
    schedule: str = "short"
    epochs: int = 60
    epoch_steps: int = 0
    lr: float = 1e-3
    clip_norm: float = 0.0
    patience: int = 0
    chunks: int = 16
    feature_norm: str = "none"
    precision: str = "auto"
    mixup: float = 0.0
    mask: float = 0.0
    gain: float = 0.0
    label_smoothing: float = 0.0
    class_weights: bool = False


PRESETS: Mapping[str, Recipe] = {
    # Won et al. 2020 and the paper, for MagnaTagATune and for DCASE 2017 Task 4.
    "mtat": Recipe(
        encoder_options={"time_pools": [3, 3]},
        schedule="published",
        epochs=200,
        lr=1e-4,
        precision="float32",
    ),
    "dcase2017": Recipe(schedule="published", epochs=200, lr=1e-4, precision="float32"),
    # Won et al. 2020: a recording is one example of one second in training and evaluation.
    "speech_commands": Recipe(
        encoder_options={"time_pools": [2, 1], "pad_to": 16128},
        crop_s=1.0,
        schedule="published",
        epochs=200,
        lr=1e-4,
        chunks=1,
        precision="float32",
    ),
    # About a minute on two cores.
    "demo": Recipe(
        width=32,
        crop_s=3.0,
        epochs=24,
        lr=2e-3,
        clip_norm=5.0,
        chunks=3,
    ),
    # Two thirds of the epochs, for tables and figures of many runs (make reproduce-demo).
    "demo-small": Recipe(
        width=32,
        crop_s=3.0,
        epochs=16,
        lr=2e-3,
        clip_norm=5.0,
        chunks=3,
    ),
    # For a CPU, or for few clips; see docs/few-labels.md.
    "small-data": Recipe(width=32, crop_s=3.0, epochs=24, lr=2e-3, clip_norm=5.0, chunks=3),
    "default": Recipe(clip_norm=5.0),
}

ALPHAS: Mapping[str, Mapping[str, float]] = {
    # train choose-alpha --dataset demo --reg conreg --alphas 0.1,0.3,1,5 --seeds 2
    # chose it on the validation split (macro PR-AUC 0.662, 0.684, 0.688 and 0.673).
    "demo": {"conreg": 1.0},
}
"""Preset -> regularizer -> alpha, where it differs from the paper's."""


def preset_for(dataset: str) -> str:
    """Return the preset named like the dataset, or ``default`` if there is none."""
    return dataset if dataset in PRESETS else "default"
