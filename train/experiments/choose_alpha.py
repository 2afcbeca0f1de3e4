"""Which weight of a regularizer does best on the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from featreg.datasets.base import UsageError
from featreg.datasets.shards.hdf5 import atomic_path

from ..config.presets import Config
from ..evaluation.metrics import METRICS
from .compare import Group, spread
from .select_runs import refuse_damaged
from .sweep import Runner


def read_alphas(text: str | None) -> list[float]:
    """The weights in ``--alphas``; none if it was not given.

    Raises
    ------
    UsageError
        If one is no number of at least 0, or is there twice.
    """
    try:
        weights = [float(weight) for weight in text.split(",")] if text else []
    except ValueError:
        weights = [-1.0]
    if not all(0 <= weight < float("inf") for weight in weights):
        raise UsageError(f"--alphas {text}: expected numbers of at least 0, such as 0.1,0.3,1")
    if len(set(weights)) < len(weights):
        raise UsageError(f"--alphas {text}: every weight once")
    return weights


def with_seeds(config: Config, seeds: int) -> list[Config]:
    """`config` with its seed and those that follow, `seeds` in all."""
    return [dataclasses.replace(config, seed=config.seed + k) for k in range(seeds)]


def with_alphas(config: Config, alphas: Sequence[float]) -> list[Config]:
    """`config` with every alpha; as it is where it has no regularizer or none are given."""
    if config.reg == "none" or not alphas:
        return [config]
    return [dataclasses.replace(config, alpha=alpha) for alpha in alphas]


def choose_alpha(config: Config, alphas: Sequence[float], seeds: int, runner: Runner) -> Choice:
    """Run `config` with every alpha and every seed, and choose.

    Raises
    ------
    FeatregError
        If all of these runs are damaged.
    """
    tried = [with_seeds(each, seeds) for each in with_alphas(config, alphas)]
    runner.run(each for seeded in tried for each in seeded)
    groups = runner.groups(tried)
    if not groups:
        refuse_damaged(runner.damaged)
    return Choice(groups)


@dataclass(frozen=True, slots=True)
class Choice:
    """The alphas that were tried, a group of runs each, and the one that validation chose.

    The test split decides nothing. Between equals the first stays.
    """

    tried: Sequence[Group]

    @property
    def chosen(self) -> Group:
        """The runs with the best mean validation metric."""
        metric = self.tried[0].config.metric
        sign = 1 if METRICS[metric].higher_is_better else -1
        means = [np.mean(list(each.values(metric, "valid").values())) for each in self.tried]
        return self.tried[int(np.argmax(sign * np.array(means)))]

    @property
    def alpha(self) -> float:
        """The weight that was chosen."""
        return self.chosen.config.alpha

    def table(self) -> pd.DataFrame:
        """A row for every alpha: mean and spread of the validation metric."""
        metric, title = self.tried[0].config.metric, METRICS[self.tried[0].config.metric].title
        found: pd.DataFrame = pd.DataFrame(
            {
                "alpha": [f"{each.config.alpha:g}" for each in self.tried],
                "seeds": [len(each.results) for each in self.tried],
                f"valid {title}": [
                    spread(list(each.values(metric, "valid").values())) for each in self.tried
                ],
                "": ["chosen" if each is self.chosen else "" for each in self.tried],
            }
        )
        return found

    def sentence(self) -> str:
        """Which was chosen, from which, and how."""
        config = self.chosen.config
        values = self.table().iloc[:, [0, 2]].itertuples(index=False, name=None)
        tried = ", ".join(f"{alpha} ({value})" for alpha, value in values)
        return (
            f"alpha {config.alpha:g} of {config.method_title} ({'+'.join(config.features)}) on "
            f"{config.dataset} was chosen on the validation split, by "
            f"{METRICS[config.metric].title}, from {tried}."
        )

    def write(self, work: Path) -> Path:
        """`table` as ``reports/alpha-DATASET-REG-FEATURES.csv`` in the working folder."""
        config = self.chosen.config
        name = f"alpha-{config.dataset}-{config.reg}-{'+'.join(config.features)}.csv"
        path = work / "reports" / name
        with atomic_path(path) as temporary:
            self.table().to_csv(temporary, index=False)
        return path
