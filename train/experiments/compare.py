"""Comparison of finished runs: groups of runs that differ in their seeds, with mean and spread."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from featreg.datasets.console import warn

from ..config.config import Config
from ..evaluation.metrics import METRICS
from ..report.print_table import UNKNOWN
from ..training.run_dir import RunDir
from .select_runs import select_runs

Key = int | tuple[int, int]
"""Seed of a run, or its tested fold and its seed."""


@dataclass
class Result:
    """A finished run, whose files are read on first access."""

    folder: RunDir

    @cached_property
    def about(self) -> dict[str, Any]:
        """Return the values of ``config.json``."""
        return self.folder.read_json("config.json")

    @cached_property
    def config(self) -> Config:
        """Return the configuration of the run."""
        return self.folder.config()

    @cached_property
    def report(self) -> dict[str, Any]:
        """Return the values of ``report.json``."""
        return self.folder.read_json("report.json")

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Return ``metrics.csv``, with one row per epoch."""
        curves: pd.DataFrame = pd.read_csv(self._open("metrics.csv"))
        return curves

    @cached_property
    def classes(self) -> pd.DataFrame:
        """Return counts and scores of the classes on the test split, indexed by class name."""
        rows: pd.DataFrame = pd.DataFrame(self.report["classes"]).set_index("name")
        return rows

    def predictions(self) -> pd.DataFrame:
        """Return ``predictions.csv``: probabilities of the test clips, indexed by clip id."""
        file = self._open("predictions.csv")
        # A clip may be called NA, which pandas would read as a missing value.
        rows = pd.read_csv(file, dtype={"clip_id": str}, keep_default_na=False)
        classes = len(self.about["data"]["classes"])
        predictions: pd.DataFrame = rows.set_index("clip_id").iloc[:, :classes]
        return predictions

    def embeddings(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of ``embeddings.npz``, on the test split."""
        with np.load(self._open("embeddings.npz")) as file:
            return dict(file)

    def _open(self, name: str) -> io.BytesIO:
        return io.BytesIO(self.folder.read_output(name))

    @cached_property
    def test_set(self) -> str:
        """Return a hash of the clips (in any order), labels and classes of the test split."""
        arrays = self.embeddings()
        digest = hashlib.sha256(json.dumps(self.about["data"]["classes"]).encode())
        order = np.argsort(arrays["clip_id"])
        for name in ("clip_id", "label", "label_mask"):
            digest.update(json.dumps(arrays[name][order].tolist()).encode())
        return digest.hexdigest()


@dataclass
class Group:
    """Runs that differ only in their seeds and in the folds that they test, sorted by both."""

    label: str
    results: list[Result]

    @property
    def config(self) -> Config:
        """Return the configuration of the first run."""
        return self.results[0].config

    @property
    def folds(self) -> list[int]:
        """Return the numbers of the tested folds; empty without cross-validation."""
        return sorted({each.config.fold.tested for each in self.results if each.config.fold})

    @property
    def test_set(self) -> str:
        """Return the hash of the test set, or of the test sets of all folds."""
        found = sorted({each.test_set for each in self.results})
        return found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()

    @property
    def positives(self) -> pd.Series[int]:
        """Return the number of test clips of each class, summed over folds."""
        firsts = {each.config.fold: each for each in reversed(self.results)}
        counts = pd.concat([each.classes["positives"] for each in firsts.values()], axis=1)
        total: pd.Series[int] = counts.sum(axis=1)
        return total

    @property
    def precision(self) -> pd.Series[float]:
        """Return each class's test average precision, as mean over runs; NaN if undefined."""
        each = [result.classes["pr_auc"].astype(float) for result in self.results]
        means: pd.Series[float] = pd.concat(each, axis=1).mean(axis=1)
        return means

    def values(self, metric: str, split: str = "test") -> dict[Key, float]:
        """Return a dict of seeds, or (fold, seed), and values of a metric."""
        return {_run_key(result.config): result.report[split][metric] for result in self.results}

    def samples(self, metric: str, split: str = "test") -> list[float]:
        """Return the values whose mean and spread describe the group.

        One for each seed; of a cross-validation, one for each fold, the mean over its seeds.
        """
        values: dict[int, list[float]] = {}
        for key, value in self.values(metric, split).items():
            values.setdefault(outer(key), []).append(value)
        return [float(np.mean(each)) for each in values.values()]

    def interval(self, metric: str) -> tuple[float, float]:
        """Return the confidence interval of a mean test metric, from those of the runs.

        It is the mean interval of the runs of a test set, which vary together. The test sets of
        folds are independent: the distances of the ends to the mean add up in squares.
        """
        ends: dict[str, list[tuple[float, float, float]]] = {}
        for result in self.results:
            value = result.report["test"][metric]
            low, high = result.report["intervals"][metric]
            ends.setdefault(result.test_set, []).append((value, value - low, high - value))
        found = np.array([np.mean(each, axis=0) for each in ends.values()])
        mean, (below, above) = found[:, 0].mean(), np.sqrt((found[:, 1:] ** 2).sum(axis=0))
        return float(mean - below / len(found)), float(mean + above / len(found))


def _run_key(config: Config) -> Key:
    return config.seed if config.fold is None else (config.fold.tested, config.seed)


def outer(key: Key) -> int:
    """Return the fold of a run of a cross-validation, else its seed."""
    return key[0] if isinstance(key, tuple) else key


def load(
    work: Path, names: Sequence[str], dataset: str | None
) -> tuple[list[Group], dict[str, str]]:
    """Group the runs that `select_runs` selects, baseline first.

    Parameters, second result and errors are those of `select_runs`.
    """
    runs, damaged = select_runs(work, names, dataset)
    return group([Result(run) for run in runs]), damaged


def group(results: Sequence[Result]) -> list[Group]:
    """Group results that have the same data and configuration except the seed and tested fold.

    Settings that all groups share (see `common`) are omitted from the labels. Labels that would
    be equal are extended by what differs. If two runs of a group have the same seed and fold, the
    run whose name is derived from its configuration is used.
    """
    groups: dict[str, dict[Key, Result]] = {}
    for result in sorted(results, key=_by_seed):
        members = groups.setdefault(key_of(result, "seed"), {})
        first = members.setdefault(_run_key(result.config), result)
        if first is not result:
            warn(f"{result.folder.name} repeats {first.folder.name} and is skipped")
    several = [list(each.values()) for each in groups.values()]
    shared = common([Group("", each) for each in several])
    labeled = [
        Group(each[0].config.title_without([*shared, *_tested(each[0].config)]), each)
        for each in several
    ]
    _make_labels_unique(labeled)
    return sorted(labeled, key=lambda each: (each.config.method != "baseline", each.label))


def _tested(config: Config) -> list[str]:
    """Return the tested fold as in `Config.overrides`; empty without one."""
    return [f"fold {config.fold.tested}"] if config.fold else []


def _by_seed(result: Result) -> tuple[int, int, bool]:
    config = result.config
    fold = config.fold.tested if config.fold else -1
    return fold, config.seed, not result.folder.name.startswith(config.run_name)


def _make_labels_unique(groups: Sequence[Group]) -> None:
    """Extend equal labels of a dataset by the properties that differ."""
    # The hash of the shards, and then the name of a run, are used only if nothing else differs.
    for properties in (("metric", "precision", "aligned"), ("shards",), ("run",)):
        alike: dict[tuple[str, str], list[Group]] = {}
        for each in groups:
            alike.setdefault((each.config.dataset, each.label), []).append(each)
        for members in alike.values():
            texts = [_properties(each) for each in members]
            for name in properties:
                if len({text[name] for text in texts}) > 1:
                    for each, text in zip(members, texts, strict=True):
                        each.label += f", {text[name]}"


def _properties(each: Group) -> dict[str, str]:
    """Return descriptions of the properties that labels do not contain."""
    config, first = each.config, each.results[0]
    return {
        "metric": f"selected by {METRICS[config.metric].title}",
        "precision": f"in {config.recipe.precision}",
        "aligned": f"aligned as {config.aligned}",
        "shards": f"shards {first.about['data']['fingerprint'][:8]}",
        "run": f"as {first.folder.name}",
    }


def common(groups: Sequence[Group]) -> list[str]:
    """Return the settings in which all groups differ equally from their dataset's preset.

    The tested fold is not such a setting.
    """
    first, *others = [
        [name for name in each.config.overrides if name not in _tested(each.config)]
        for each in groups
    ]
    return [override for override in first if all(override in other for other in others)]


def key_of(result: Result, *without: str) -> str:
    """Return the fingerprint of the data and the configuration except the keys `without`.

    It never depends on the tested fold, and on the groups only through the folds made from them.
    """
    values = {**result.config.to_json(), "data": result.about["data"]["fingerprint"], "group": ""}
    if "fold" in values:
        values["fold"] = {**values["fold"], "tested": None}
    if "seed" in without:  # each seed may have its own pretraining
        values |= {"init": result.config.init_name, "init_sha256": ""}
    return json.dumps({k: v for k, v in values.items() if k not in without}, sort_keys=True)


def table(groups: Sequence[Group], intervals: bool = False) -> pd.DataFrame:
    """Return a table of test metrics and validation metric, with one row per group.

    The spread is the sample standard deviation over seeds or, in a cross-validation, over folds,
    each the mean over its seeds; it is omitted for a single value. With `intervals`, the 95 %
    intervals of the test metrics follow in brackets, see `Group.interval`. If the groups have
    different test sets, an additional column numbers the test sets. If their epochs were selected
    by different metrics, each metric has a column.
    """
    tested = list(dict.fromkeys(each.test_set for each in groups))
    rows: list[dict[str, object]] = []
    for each in groups:
        metric = each.config.metric
        row: dict[str, object] = {"method": each.label}
        if any(other.folds for other in groups):
            folds = each.folds
            row["folds"] = f"fold {folds[0]}" if len(folds) == 1 else len(folds) or UNKNOWN
        row["seeds"] = len({result.config.seed for result in each.results})
        if len(tested) > 1:
            row["test set"] = 1 + tested.index(each.test_set)
        for name in each.results[0].report["test"]:
            ends = " ({:.3f} to {:.3f})".format(*each.interval(name)) if intervals else ""
            row[f"test {METRICS[name].title}"] = spread(each.samples(name)) + ends
        row[f"valid {METRICS[metric].title}"] = spread(each.samples(metric, "valid"))
        row["parameters without extractors"] = (
            f"{each.results[0].about['parameters']['inference']:,}"
        )
        rows.append(row)
    result: pd.DataFrame = pd.DataFrame(rows).fillna(UNKNOWN)
    return result


def spread(values: Sequence[float]) -> str:
    """Return mean and sample standard deviation as text, such as ``0.583 ± 0.012``."""
    return format_spread(float(np.mean(values)), deviation(values))


def format_spread(mean: float, deviation: float) -> str:
    """Return mean and standard deviation as text; only the mean if the deviation is NaN."""
    return f"{mean:.3f} ± {deviation:.3f}" if np.isfinite(deviation) else f"{mean:.3f}"


def deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation; NaN for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
