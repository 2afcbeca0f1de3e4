"""Configuration of a run: all its settings, and the names that they give it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ..regularizers.registry import default_norm
from .presets import OFF, PRESETS, Recipe, preset_for


@dataclass(frozen=True, slots=True)
class Probe:
    """Settings of a probe: a small classifier on pooled features, without an encoder.

    Attributes
    ----------
    kind
        ``logistic`` (logistic regression) or ``mlp`` (a multilayer perceptron).
    pool
        Pooling of the frames over time, a name in ``models.probe.POOLS``.
    """

    kind: str = "logistic"
    pool: str = "mean"


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold of a cross-validation, see `data.folds`.

    Attributes
    ----------
    tested
        Number of the fold that is tested.
    count
        Number of folds that are made; None for the folds that the shards store.
    seed
        Seed of the folds that are made.
    """

    tested: int
    count: int | None = None
    seed: int = 0


PROBE_RECIPE = Recipe(feature_norm="standardize", precision="float32")
"""Recipe in the configuration of a probe; all its other settings are unused and not stored."""


_TITLES = {
    "conreg": "Con-Reg",
    "disreg": "Dis-Reg",
    "hint": "Hint",
    "dcor": "distance correlation",
    "rkd": "RKD",
    "scores": "soft scores",
    "features": "feature-only",
    "pretrain": "pretraining",
    "init": "pretrained",
    "film": "FiLM",
    "concat": "Concat",
    "probe": "Probe",
    "mlp-probe": "MLP probe",
}


@dataclass(frozen=True, slots=True)
class Config:
    """All settings that determine the results of a run on given data and a given machine.

    Attributes
    ----------
    dataset, aligned
        Names that select the shards in WORK/DATASET/aligned/ALIGNED.
    preset
        Name of the preset from which the recipe is derived.
    reg
        A name in ``regularizers.registry.REGULARIZERS``, or several joined by ``+``.
    fusion
        A name in ``models.registry.FUSIONS``.
    features
        Names of the features, concatenated in this order; empty if the method uses none.
    alpha
        Weight of the (first) regularizer; 0 without one.
    fraction
        Fraction of the training clips to use, in (0, 1].
    seed
        Seed of weights, crops, order, dropout, augmentation, and the choice of clips and labels.
    metric
        Name in ``metrics.METRICS`` of the validation metric that selects the best epoch.
    devices
        Number of devices that train together, each with its own share of a batch.
    recipe
        All other settings. `precision` is ``float32`` or ``bf16-mixed``.
    label_fraction
        Fraction of the labelled training clips whose labels are used, in (0, 1].
    unlabelled_batch
        Number of training clips without labels per batch and device; with 0, they are not used.
    more_alphas
        Weights of the other regularizers of a combination.
    alpha_schedule
        A name in ``schedule.ALPHA_SCHEDULES``.
    pretrain
        Whether only the encoder and the regularizer are trained, on all training clips.
    init
        Name or folder of the run whose encoder this run starts from; empty for none.
    init_sha256
        SHA-256 of that run's file with the encoder.
    probe
        Settings of a probe, whose `fusion` is ``features``; None for a network.
    fold
        The tested fold of a cross-validation; None for the stored splits.
    group
        Groups of clips, see `data.groups.read_groups`; empty for none.
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
    label_fraction: float = 1.0
    unlabelled_batch: int = 0
    more_alphas: tuple[float, ...] = ()
    alpha_schedule: str = "constant"
    pretrain: bool = False
    init: str = ""
    init_sha256: str = ""
    probe: Probe | None = None
    fold: Fold | None = None
    group: str = ""

    @property
    def alphas(self) -> tuple[float, ...]:
        """Return the weight of each regularizer."""
        return (self.alpha, *self.more_alphas) if self.reg != "none" else ()

    @property
    def alpha_text(self) -> str:
        """Return the weights as on the command line, such as ``5+1``; empty without any."""
        return "+".join(f"{alpha:g}" for alpha in self.alphas)

    @property
    def method(self) -> str:
        """Return ``baseline``, ``probe``, or the names of its parts, such as fusion and reg."""
        if self.probe:
            return "probe" if self.probe.kind == "logistic" else f"{self.probe.kind}-probe"
        parts = ["pretrain"] if self.pretrain else ["init"] if self.init else []
        parts += [name for name in (self.fusion, self.reg) if name != "none"]
        return "+".join(parts) or "baseline"

    @property
    def method_title(self) -> str:
        """Return the method's name in the paper, such as ``Con-Reg``."""
        return "+".join(_TITLES.get(name, name) for name in self.method.split("+"))

    @property
    def init_name(self) -> str:
        """Return the name of the run that this run starts from, without this run's seed."""
        return PurePath(self.init).name.removesuffix(f"-s{self.seed}")

    @property
    def label(self) -> str:
        """Return a name of the runs that differ in their seeds only: ``conreg-musicnn-a0.3``.

        Settings that differ from the preset are appended, such as ``-epochs5``.
        """
        parts = [self.method, "+".join(self.features)]
        parts += [f"a{self.alpha_text}"] if self.reg != "none" else []
        return "-".join(filter(None, parts + [f"{k}{word(v)}" for k, v in self._overrides()]))

    @property
    def title(self) -> str:
        """Return the label for readers, such as ``Con-Reg (musicnn, alpha 0.3)``."""
        return self.title_without()

    def title_without(self, omitted: Collection[str] = ()) -> str:
        """Return the title without those of its `overrides` that are in `omitted`."""
        parts = ["+".join(self.features)]
        parts += [f"alpha {self.alpha_text}"] if self.reg != "none" else []
        parts += [override for override in self.overrides if override not in omitted]
        details = ", ".join(filter(None, parts))
        return f"{self.method_title} ({details})" if details else self.method_title

    @property
    def overrides(self) -> list[str]:
        """Return the settings that differ from the dataset's preset, such as ``epochs 5``."""
        return [f"{name} {word(value)}".strip() for name, value in self._overrides()]

    @property
    def run_name(self) -> str:
        """Return the name of the run, such as ``demo-conreg-musicnn-a0.3-s0``."""
        return f"{self.dataset}-{self.label}-s{self.seed}"

    def _overrides(self) -> list[tuple[str, Any]]:
        """Return the settings that differ from the dataset's preset, except the precision.

        The precision depends on the hardware.
        """
        overrides: list[tuple[str, Any]] = []
        if self.fraction < 1:
            overrides.append(("fraction", self.fraction))
        if self.label_fraction < 1:
            overrides.append(("labels", self.label_fraction))
        if self.unlabelled_batch:
            overrides.append(("unlabelled", self.unlabelled_batch))
        if self.alpha_schedule != "constant":
            overrides.append(("alphaschedule", self.alpha_schedule))
        if self.init:
            overrides.append(("from", self.init_name))
        if self.devices > 1:
            overrides.append(("devices", self.devices))
        if self.fold:
            overrides.append(("fold", self.fold.tested))
            if self.fold.count is not None:
                overrides.append(("of", self.fold.count))
                overrides += [("foldseed", self.fold.seed)] * (self.fold.seed != 0)
        if self.probe:
            return overrides + [("pool", self.probe.pool)] * (self.probe.pool != Probe().pool)
        if self.preset != preset_for(self.dataset):
            overrides.append(("preset", self.preset))
        preset, recipe = dataclasses.asdict(PRESETS[self.preset]), dataclasses.asdict(self.recipe)
        if preset["feature_norm"] == "none":
            preset["feature_norm"] = default_norm(self.reg)
        changed = {k: v for k, v in recipe.items() if v != preset[k] and k != "precision"}
        return overrides + [(k.removesuffix("_s").replace("_", ""), v) for k, v in changed.items()]

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as JSON values, which `from_json` reads."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.probe:
            used = ("feature_norm", "precision")
            values["recipe"] = {name: values["recipe"][name] for name in used}
        for name in ("probe", "fold", "group"):
            if not values[name]:
                del values[name]
        for name in OFF:
            if not values["recipe"].get(name):
                values["recipe"].pop(name, None)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Config:
        """Return the configuration whose `to_json` gave `values`."""
        read: dict[str, Any] = {"recipe": Recipe(**values["recipe"])}
        read |= {name: tuple(values.get(name, ())) for name in ("features", "more_alphas")}
        if "probe" in values:
            read["probe"] = Probe(**values["probe"])
        if "fold" in values:
            read["fold"] = Fold(**values["fold"])
        return cls(**{**values, **read})

    def fingerprint(self, data: str) -> str:
        """Return a hash of this configuration and of `data`, the fingerprint of the shards."""
        text = json.dumps([self.to_json(), data], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def word(value: object) -> str:
    """Return a setting as in the names of runs, such as ``0.5``; empty for True."""
    if isinstance(value, bool):
        return "" if value else "off"
    if isinstance(value, Mapping):
        return "-".join(f"{key}{word(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
