"""What a run is made of, and the published and the small recipe for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is built and trained: all that a preset decides.

    Attributes
    ----------
    encoder
        A name in ``models.registry.ENCODERS``.
    width
        Channels of the encoder's first blocks.
    encoder_options
        Further keyword arguments of the encoder.
    crop_s
        Seconds of audio in a training example and in an evaluation chunk.
    batch_size
        Clips in a batch, on each device.
    schedule
        A name in ``schedule.SCHEDULES``.
    epochs
        Length of the whole schedule.
    lr
        Learning rate that the rates of the schedule's stages are multiples of.
    clip_norm
        Gradients are scaled down to this norm; 0 leaves them.
    patience
        Epochs without a better validation metric after which training stops; 0: never.
    chunks
        Evaluation pieces of a clip, whose probabilities are averaged.
    standardize
        Whether features are brought to mean 0 and deviation 1 by the training clips.
        The paper leaves them as they are.
    precision
        ``float32``, ``bf16-mixed``, or ``auto``: the latter where the hardware has it.
    """

    encoder: str = "harmonic_cnn"
    width: int = 128
    encoder_options: Mapping[str, Any] = field(default_factory=dict)
    crop_s: float = 5.0
    batch_size: int = 16
    schedule: str = "short"
    epochs: int = 60
    lr: float = 1e-3
    clip_norm: float = 0.0
    patience: int = 0
    chunks: int = 16
    standardize: bool = False
    precision: str = "auto"


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
    # Won et al. 2020: a recording is one example of one second, in training and evaluation.
    "speech_commands": Recipe(
        encoder_options={"time_pools": [2, 1], "pad_to": 16128},
        crop_s=1.0,
        schedule="published",
        epochs=200,
        lr=1e-4,
        chunks=1,
        precision="float32",
    ),
    # A minute on two cores.
    "demo": Recipe(
        width=32,
        crop_s=3.0,
        epochs=24,
        lr=2e-3,
        clip_norm=5.0,
        chunks=3,
    ),
    # Two thirds of that: for tables and figures of many runs (make reproduce-demo).
    "demo-small": Recipe(
        width=32,
        crop_s=3.0,
        epochs=16,
        lr=2e-3,
        clip_norm=5.0,
        chunks=3,
    ),
    "default": Recipe(clip_norm=5.0),
}

ALPHAS: Mapping[str, Mapping[str, float]] = {
    # train choose-alpha --dataset demo --reg conreg --alphas 0.1,0.3,1,5 --seeds 2
    # chose it on the validation split (macro PR-AUC 0.662, 0.684, 0.688 and 0.673).
    "demo": {"conreg": 1.0},
}
"""Weights of the regularizers that a preset sets; elsewhere they are the paper's."""

_TITLES = {
    "conreg": "Con-Reg",
    "disreg": "Dis-Reg",
    "hint": "Hint",
    "dcor": "distance correlation",
    "rkd": "RKD",
    "scores": "soft scores",
    "features": "feature-only",
    "film": "FiLM",
    "concat": "Concat",
}


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that decides a run's numbers, on given data and a given machine.

    Attributes
    ----------
    dataset, aligned
        Which shards: WORK/DATASET/aligned/ALIGNED.
    preset
        Where the recipe came from.
    reg
        A name in ``regularizers.registry.REGULARIZERS``.
    fusion
        A name in ``models.registry.FUSIONS``.
    features
        Side by side, in this order; empty where the method uses none.
    alpha
        Weight of the regularizer; 0 without one.
    fraction
        Share of the training clips.
    seed
        Of weights, crops, order, dropout and the choice of the fraction.
    metric
        What selects the best epoch: a name in ``metrics.METRICS``.
    devices
        Devices that train together, each on a batch of its own.
    recipe
        The rest. `precision` is resolved: ``float32`` or ``bf16-mixed``.
    """

    dataset: str
    aligned: str
    preset: str
    reg: str
    fusion: str
    features: tuple[str, ...]
    alpha: float
    fraction: float
    seed: int
    metric: str
    devices: int
    recipe: Recipe

    @property
    def method(self) -> str:
        """``baseline``, a regularizer, a fusion, or both joined by +."""
        parts = [name for name in (self.fusion, self.reg) if name != "none"]
        return "+".join(parts) or "baseline"

    @property
    def method_title(self) -> str:
        """The method as the paper calls it: ``Con-Reg``."""
        return "+".join(_TITLES.get(name, name) for name in self.method.split("+"))

    @property
    def label(self) -> str:
        """Names a group of runs that differ in their seeds: ``conreg-musicnn-a0.3``.

        Deviations from the preset stand at the end, ``-epochs5`` for example.
        """
        parts = [self.method, "+".join(self.features)]
        parts += [f"a{self.alpha:g}"] if self.reg != "none" else []
        return "-".join(filter(None, parts + [f"{k}{_word(v)}" for k, v in self._specials()]))

    @property
    def title(self) -> str:
        """The label in words: ``Con-Reg (musicnn, alpha 0.3)``."""
        return self.titled()

    def titled(self, without: Collection[str] = ()) -> str:
        """The title without some of its `specials`: those that all around it share."""
        parts = ["+".join(self.features)]
        parts += [f"alpha {self.alpha:g}"] if self.reg != "none" else []
        parts += [special for special in self.specials if special not in without]
        inside = ", ".join(filter(None, parts))
        return f"{self.method_title} ({inside})" if inside else self.method_title

    @property
    def specials(self) -> list[str]:
        """What is not as the dataset's preset has it, in words: ``epochs 5``."""
        return [f"{name} {_word(value)}".strip() for name, value in self._specials()]

    @property
    def run_name(self) -> str:
        """Names the run among all: ``demo-conreg-musicnn-a0.3-s0``."""
        return f"{self.dataset}-{self.label}-s{self.seed}"

    def _specials(self) -> list[tuple[str, Any]]:
        """What is not as the dataset's preset has it; precision is a matter of hardware."""
        found: list[tuple[str, Any]] = []
        if self.fraction < 1:
            found.append(("fraction", self.fraction))
        if self.devices > 1:
            found.append(("devices", self.devices))
        if self.preset != preset_for(self.dataset):
            found.append(("preset", self.preset))
        preset, recipe = dataclasses.asdict(PRESETS[self.preset]), dataclasses.asdict(self.recipe)
        changed = {k: v for k, v in recipe.items() if v != preset[k] and k != "precision"}
        return found + [(k.removesuffix("_s").replace("_", ""), v) for k, v in changed.items()]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` reads them back."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Config:
        """The configuration that `to_json` wrote."""
        recipe = Recipe(**values["recipe"])
        return cls(**{**values, "features": tuple(values["features"]), "recipe": recipe})

    def fingerprint(self, data: str) -> str:
        """Hash of this configuration and of the data it is applied to."""
        text = json.dumps([self.to_json(), data], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def preset_for(dataset: str) -> str:
    """The preset of a dataset, by its name; ``default`` for the user's own."""
    return dataset if dataset in PRESETS else "default"


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "" if value else "off"
    if isinstance(value, Mapping):
        return "-".join(f"{key}{_word(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
