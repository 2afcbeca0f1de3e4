"""Finished runs side by side: groups that differ in their seeds alone, mean and spread."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from featreg.datasets.console import warn

from ..config.presets import ALPHAS, Config
from ..evaluation.metrics import METRICS
from ..report.print_table import UNKNOWN
from ..training.run_dir import RunDir
from .select_runs import select_runs


@dataclass
class Result:
    """A finished run, read when asked for."""

    folder: RunDir

    @cached_property
    def about(self) -> dict[str, Any]:
        """``config.json``."""
        return self.folder.read_json("config.json")

    @cached_property
    def config(self) -> Config:
        """Its configuration."""
        return self.folder.config()

    @cached_property
    def report(self) -> dict[str, Any]:
        """``report.json``."""
        return self.folder.read_json("report.json")

    @cached_property
    def curves(self) -> pd.DataFrame:
        """``metrics.csv``, a row per epoch."""
        curves: pd.DataFrame = pd.read_csv(self._open("metrics.csv"))
        return curves

    @cached_property
    def classes(self) -> pd.DataFrame:
        """Counts and scores of each class on the test split, by class name."""
        rows: pd.DataFrame = pd.DataFrame(self.report["classes"]).set_index("name")
        return rows

    def predictions(self) -> pd.DataFrame:
        """``predictions.csv``: probabilities by clip and class, on the test split."""
        # A clip may be called NA.
        file = self._open("predictions.csv")
        rows = pd.read_csv(file, dtype={"clip_id": str}, keep_default_na=False)
        found: pd.DataFrame = rows.set_index("clip_id")
        return found

    def embeddings(self) -> dict[str, npt.NDArray[Any]]:
        """``embeddings.npz`` of the test split."""
        with np.load(self._open("embeddings.npz")) as file:
            return dict(file)

    def _open(self, name: str) -> io.BytesIO:
        return io.BytesIO(self.folder.read_output(name))

    @cached_property
    def test_set(self) -> str:
        """Fingerprint of what it was tested on: clips, in any order, labels and classes."""
        arrays = self.embeddings()
        digest = hashlib.sha256(json.dumps(self.about["data"]["classes"]).encode())
        order = np.argsort(arrays["clip_id"])
        for name in ("clip_id", "label", "label_mask"):
            digest.update(json.dumps(arrays[name][order].tolist()).encode())
        return digest.hexdigest()


@dataclass
class Group:
    """Runs that differ in their seeds alone, by seed."""

    label: str
    results: list[Result]

    @property
    def config(self) -> Config:
        """Of the first run."""
        return self.results[0].config

    @property
    def test_set(self) -> str:
        """Of all of its runs, since they have the same data."""
        return self.results[0].test_set

    @property
    def precision(self) -> pd.Series[float]:
        """Average precision of each class on the test split, mean over seeds; NaN without one."""
        each = [result.classes["pr_auc"].astype(float) for result in self.results]
        means: pd.Series[float] = pd.concat(each, axis=1).mean(axis=1)
        return means

    def values(self, metric: str, split: str = "test") -> dict[int, float]:
        """A metric by seed."""
        return {result.config.seed: result.report[split][metric] for result in self.results}


class Loaded(NamedTuple):
    """Finished runs in groups, baseline first, and why others are left out, by name."""

    groups: list[Group]
    damaged: dict[str, str]


def load(work: Path, names: Sequence[str], dataset: str | None) -> Loaded:
    """Finished runs in groups; damaged ones are named in a warning and left out.

    Parameters
    ----------
    work
        The working folder.
    names
        Runs, by name or path, each used once; none for all of the dataset.
    dataset
        Whose runs; None if all are of one.

    Raises
    ------
    FeatregError
        If a run that is named is not finished, or no run can be shown.
    UsageError
        If the runs are of several datasets.
    """
    runs, damaged = select_runs(work, names, dataset)
    return Loaded(group([Result(run) for run in runs]), damaged)


def group(results: Sequence[Result]) -> list[Group]:
    """Results by all of their configuration but the seed, and by their data.

    What all of them share beyond their dataset's preset is left out of their labels, and
    is what `common` says. Where labels are equal all the same, they say what differs. Of a
    seed that is there twice one run is taken: the one that bears the name of its configuration.
    """
    groups: dict[str, dict[int, Result]] = {}
    for result in sorted(results, key=_by_seed):
        first = groups.setdefault(_key(result, "seed"), {}).setdefault(result.config.seed, result)
        if first is not result:
            warn(f"{result.folder.name} repeats {first.folder.name}, and is left out")
    members = [list(each.values()) for each in groups.values()]
    shared = common([Group("", each) for each in members])
    found = [Group(each[0].config.titled(shared), each) for each in members]
    _tell_apart(found)
    return sorted(found, key=lambda each: (each.config.method != "baseline", each.label))


def _by_seed(result: Result) -> tuple[int, bool]:
    config = result.config
    return config.seed, not result.folder.name.startswith(config.run_name)


def _tell_apart(groups: Sequence[Group]) -> None:
    """Add to equal labels of a dataset what differs there, and only that."""
    # The hash of shards says least, so only where nothing before it differs; a name always does.
    for marks in (("metric", "precision", "aligned"), ("shards",), ("run",)):
        alike: dict[tuple[str, str], list[Group]] = {}
        for each in groups:
            alike.setdefault((each.config.dataset, each.label), []).append(each)
        for members in alike.values():
            said = [_marks(each) for each in members]
            for mark in marks:
                if len({words[mark] for words in said}) > 1:
                    for each, words in zip(members, said, strict=True):
                        each.label += f", {words[mark]}"


def _marks(each: Group) -> dict[str, str]:
    """What no label holds, in words."""
    config, first = each.config, each.results[0]
    return {
        "metric": f"selected by {METRICS[config.metric].title}",
        "precision": f"in {config.recipe.precision}",
        "aligned": f"aligned as {config.aligned}",
        "shards": f"shards {first.about['data']['fingerprint'][:8]}",
        "run": f"as {first.folder.name}",
    }


def common(groups: Sequence[Group]) -> list[str]:
    """What every group has otherwise than its dataset's preset: ``preset demo-small``."""
    first, *others = [each.config.specials for each in groups]
    return [special for special in first if all(special in specials for specials in others)]


def _key(result: Result, *without: str) -> str:
    """All of a configuration but some of its parts, and the data it was applied to."""
    values = {**result.config.to_json(), "data": result.about["data"]["fingerprint"]}
    return json.dumps({k: v for k, v in values.items() if k not in without}, sort_keys=True)


def table(groups: Sequence[Group]) -> pd.DataFrame:
    """One row a group: test metrics as mean and spread, and the validation metric.

    The spread is the sample standard deviation over seeds; where there is one seed,
    there is none. Where groups were tested on different things, a column numbers them; where
    other metrics selected their epochs, each has a dash in the others' columns.
    """
    tested = list(dict.fromkeys(each.test_set for each in groups))
    rows: list[dict[str, object]] = []
    for each in groups:
        metric = each.config.metric
        row: dict[str, object] = {"method": each.label, "seeds": len(each.results)}
        if len(tested) > 1:
            row["test set"] = 1 + tested.index(each.test_set)
        for name in each.results[0].report["test"]:
            row[f"test {METRICS[name].title}"] = spread(list(each.values(name).values()))
        row[f"valid {METRICS[metric].title}"] = spread(list(each.values(metric, "valid").values()))
        row["parameters without extractors"] = (
            f"{each.results[0].about['parameters']['inference']:,}"
        )
        rows.append(row)
    found: pd.DataFrame = pd.DataFrame(rows).fillna(UNKNOWN)
    return found


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation: ``0.583 ± 0.012``."""
    return spread_of(float(np.mean(values)), deviation(values))


def spread_of(mean: float, deviation: float) -> str:
    """Both in words; of one value, whose deviation is NaN, the mean alone."""
    return f"{mean:.3f} ± {deviation:.3f}" if np.isfinite(deviation) else f"{mean:.3f}"


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN of one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def differences(groups: Sequence[Group]) -> list[str]:
    """What each group gains or loses against its baseline, in words, seed by seed.

    Its baseline has the same recipe and the same clips to learn from.
    """
    baselines = [each for each in groups if each.config.method == "baseline"]
    if not baselines:
        return ["No baseline is among these runs, so they say nothing about what a method adds."]
    return [
        _difference(each, [first for first in baselines if _fair(each, first)])
        for each in groups
        if each.config.method != "baseline"
    ]


def _fair(each: Group, baseline: Group) -> bool:
    method = ("seed", "reg", "fusion", "features", "alpha", "recipe")
    recipes = [
        dataclasses.replace(group.config.recipe, standardize=False)  # of features
        for group in (each, baseline)
    ]
    keys = [_key(group.results[0], *method) for group in (each, baseline)]
    return recipes[0] == recipes[1] and keys[0] == keys[1]


def _difference(each: Group, baselines: Sequence[Group]) -> str:
    if not baselines:
        return f"{each.label}: no baseline with its recipe and its clips is among these runs."
    first = baselines[0]
    metric = first.config.metric
    title = METRICS[metric].title
    ours, theirs = each.values(metric), first.values(metric)
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        return f"{each.label} and {first.label} have no seed in common."
    sign = 1 if METRICS[metric].higher_is_better else -1
    gains = sign * np.array([ours[seed] - theirs[seed] for seed in seeds])
    word = "better" if gains.mean() > 0 else "worse"
    sentence = f"{each.label} is {abs(gains.mean()):.3f} {word} than {first.label} in {title}"
    if len(seeds) == 1:
        return f"{sentence}, on one seed: that is no evidence yet."
    if (gains > 0).all() or (gains < 0).all():
        return f"{sentence}, and {word} on each of {len(seeds)} seeds."
    return (
        f"{sentence} on average, but from {gains.min():+.3f} to {gains.max():+.3f} over "
        f"{len(seeds)} seeds: no clear difference."
    )


def notes(groups: Sequence[Group]) -> list[str]:
    """What must stand beside every result: that clips are missing, say, or not the same."""
    found = [result.about["data"]["notes"] for each in groups for result in each.results]
    said = list(dict.fromkeys(note for several in found for note in several))
    tested = {(each.config.dataset, each.test_set) for each in groups}
    if len(tested) > len({dataset for dataset, _ in tested}):
        said.append(
            "Not all of these runs were tested on the same clips, labels and classes: numbers "
            "compare within a test set only."
        )
    return said


def alphas(groups: Sequence[Group]) -> list[str]:
    """Where the weight of each regularized group comes from, in words."""
    sentences = []
    for each in groups:
        config = each.config
        chosen = ALPHAS.get(config.preset, {}).get(config.reg)
        if config.alpha == chosen:
            sentences.append(
                f"alpha {config.alpha:g} of {each.label} was chosen on the validation split, by "
                f"`train choose-alpha --reg {config.reg}`; it is not the paper's."
            )
    return sentences
