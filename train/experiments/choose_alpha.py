"""Selection of a regularizer's weight alpha on the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from featreg.datasets.base import UsageError
from featreg.datasets.shards.hdf5 import atomic_path

from ..config.config import Config
from ..evaluation.metrics import METRICS
from .compare import Group, spread
from .select_runs import refuse_damaged
from .sweep import Runner


def read_alphas(text: str | None) -> list[float]:
    """Parse the value of ``--alphas``; return an empty list if it is None.

    Raises
    ------
    UsageError
        If a weight is not a number >= 0, or is given twice.
    """
    try:
        weights = [float(weight) for weight in text.split(",")] if text else []
    except ValueError:
        weights = [-1.0]
    if not all(0 <= weight < float("inf") for weight in weights):
        raise UsageError(f"--alphas {text}: expected numbers >= 0, such as 0.1,0.3,1")
    if len(set(weights)) < len(weights):
        raise UsageError(f"--alphas {text}: give each weight only once")
    return weights


def with_seeds(config: Config, seeds: int) -> list[Config]:
    """Return `seeds` configurations with consecutive seeds, starting with that of `config`."""
    return [dataclasses.replace(config, seed=config.seed + k) for k in range(seeds)]


def with_alphas(config: Config, alphas: Sequence[float]) -> list[Config]:
    """Return `config` with each alpha; unchanged without a regularizer or without alphas.

    Raises
    ------
    UsageError
        If `config` combines several regularizers.
    """
    if config.reg == "none" or not alphas:
        return [config]
    if config.more_alphas:
        raise UsageError(
            f"--reg {config.reg} --alphas: the weight of one regularizer at a time can be chosen; "
            "compare runs with other --alpha values instead"
        )
    return [dataclasses.replace(config, alpha=alpha) for alpha in alphas]


def choose_alpha(config: Config, alphas: Sequence[float], seeds: int, runner: Runner) -> Choice:
    """Run `config` with each alpha and each seed, and choose the best alpha.

    Raises
    ------
    FeatregError
        If a run fails, or all runs are damaged.
    """
    tried = [with_seeds(each, seeds) for each in with_alphas(config, alphas)]
    runner.run(each for seeded in tried for each in seeded)
    groups = runner.groups(tried)
    if not groups:
        refuse_damaged(runner.damaged)
    return Choice(groups)


@dataclass(frozen=True, slots=True)
class Choice:
    """Groups of runs with different alphas, and the choice among them.

    The choice depends on the validation split only. The first of equal alphas is chosen.
    """

    tried: Sequence[Group]

    @property
    def chosen(self) -> Group:
        """Return the group with the best mean validation metric."""
        metric = self.tried[0].config.metric
        sign = 1 if METRICS[metric].higher_is_better else -1
        means = [np.mean(list(each.values(metric, "valid").values())) for each in self.tried]
        return self.tried[int(np.argmax(sign * np.array(means)))]

    def table(self) -> pd.DataFrame:
        """Return mean and standard deviation of the validation metric, one row per alpha."""
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
        """Return a sentence on the chosen alpha, the other alphas, and the criterion."""
        config = self.chosen.config
        values = self.table().iloc[:, [0, 2]].itertuples(index=False, name=None)
        tried = ", ".join(f"{alpha} ({value})" for alpha, value in values)
        return (
            f"alpha {config.alpha:g} of {config.method_title} ({'+'.join(config.features)}) on "
            f"{config.dataset} was chosen by {METRICS[config.metric].title} on the validation "
            f"split, from {tried}."
        )

    def write(self, work: Path) -> Path:
        """Write `table` to WORK/reports/alpha-DATASET-REG-FEATURES.csv; return the path."""
        config = self.chosen.config
        name = f"alpha-{config.dataset}-{config.reg}-{'+'.join(config.features)}.csv"
        path = work / "reports" / name
        with atomic_path(path) as temporary:
            self.table().to_csv(temporary, index=False)
        return path
