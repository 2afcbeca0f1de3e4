"""Table and figure of a study: test metrics with intervals, and differences from the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from featreg.datasets.base import FeatregError
from featreg.datasets.shards.hdf5 import atomic_path
from featreg.datasets.shards.workdir import DatasetDir

from ..data.groups import read_groups
from ..evaluation.bootstrap import Counts, Values, draws, interval, resampled
from ..evaluation.metrics import METRICS
from ..training.run_dir import RunDir
from .compare import Result
from .study import Study, run_name

RESAMPLES = 1000


def table(work: Path, study: Study) -> pd.DataFrame:
    """Return one row per method, fraction of the labels and metric.

    `mean` is the mean of the test metric over the seeds. `low` and `high` limit a 95 % interval
    from a bootstrap that draws groups of test clips and seeds, both with replacement and the same
    for all methods. `gain` is the difference from the first method, with the interval `gain_low`
    to `gain_high`, paired by clip and seed. `closed` is the gain as a fraction of the difference
    between the last method that is a probe and the first method.

    Raises
    ------
    FeatregError
        If a run is not finished, or the runs were tested on different clips.
    """
    rows = []
    picks = np.random.default_rng(1).integers(len(study.seeds), size=(len(study.seeds), RESAMPLES))
    for fraction in study.label_fractions:
        first: dict[str, tuple[float, Values]] = {}
        for name in study.methods:
            runs = [run_name(study, name, fraction, seed) for seed in study.seeds]
            results = [_result(work, run) for run in runs]
            counts = _counts(work, study, results)
            drawn = [_drawn(result, counts) for result in results]
            for metric in ("accuracy", "pr_auc", "f1_samples"):
                if any(metric not in each for each in drawn):
                    continue
                seeds = np.array([result.report["test"][metric] for result in results])
                values = np.take_along_axis(np.array([each[metric] for each in drawn]), picks, 0)
                mean, sampled = float(seeds.mean()), values.mean(axis=0)
                base, base_sampled = first.setdefault(metric, (mean, sampled))
                low, high = interval(sampled, mean)
                gain = sampled - base_sampled
                gain_low, gain_high = np.nanquantile(
                    gain + (mean - base - np.nanmean(gain)), [0.025, 0.975]
                )
                rows.append(
                    {
                        "method": name,
                        "label_fraction": fraction,
                        "labelled_clips": results[0].about["data"]["clips"]["train"],
                        "metric": metric,
                        "seeds": len(seeds),
                        "mean": mean,
                        "deviation": float(seeds.std(ddof=1)) if len(seeds) > 1 else np.nan,
                        "low": low,
                        "high": high,
                        "gain": mean - base,
                        "gain_low": gain_low,
                        "gain_high": gain_high,
                    }
                )
    found = pd.DataFrame(rows)
    found["closed"] = _closed(found, study)
    named: pd.DataFrame = found
    return named


def _closed(found: pd.DataFrame, study: Study) -> npt.NDArray[np.float64]:
    probes = [name for name, method in study.methods.items() if method.command[0] == "probe"]
    if not probes:
        return np.full(len(found), np.nan)
    ceiling = found[found["method"] == probes[-1]].set_index(["label_fraction", "metric"])["gain"]
    keys = pd.MultiIndex.from_frame(found[["label_fraction", "metric"]])
    return np.asarray(found["gain"] / ceiling.reindex(keys).to_numpy())


def _result(work: Path, run: str) -> Result:
    folder = RunDir(work / "runs" / run)
    if not folder.finished:
        raise FeatregError(f"{folder.path} is not finished; run `train study` without --table-only")
    return Result(folder)


def _counts(work: Path, study: Study, results: Sequence[Result]) -> Counts:
    first = results[0]
    if len({result.test_set for result in results}) > 1:
        raise FeatregError(f"{first.folder.name} and other runs were tested on different clips")
    clips = np.sort(first.embeddings()["clip_id"])
    folder = DatasetDir(work / first.config.dataset)
    groups = read_groups(study.group, folder, clips) if study.group else clips
    return draws(len(clips), RESAMPLES, groups=groups)


def _drawn(result: Result, counts: Counts) -> dict[str, Values]:
    """Return each metric on the drawn clips, which are sorted by id."""
    arrays = result.embeddings()
    order = np.argsort(arrays["clip_id"])
    classes = result.about["data"]["classes"]
    probability = result.predictions().loc[arrays["clip_id"][order], classes].to_numpy()
    label, mask = arrays["label"][order], arrays["label_mask"][order]
    return resampled(label, probability, mask, counts, result.about["data"]["task"])


def formatted(found: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a table for display: methods (rows), fractions of the labels (columns)."""
    rows = found[found["metric"] == metric]
    cells = rows.assign(
        value=[
            f"{mean:.3f} ({low:.3f} to {high:.3f})"
            for mean, low, high in rows[["mean", "low", "high"]].itertuples(index=False)
        ]
    )
    wide = cells.pivot(index="method", columns="label_fraction", values="value")
    wide = wide.loc[cells["method"].unique()]
    wide.columns = pd.Index([f"{100 * fraction:g} % of the labels" for fraction in wide.columns])
    named: pd.DataFrame = wide.reset_index()
    return named


def markdown(found: pd.DataFrame) -> str:
    """Return the tables of all metrics in Markdown."""
    parts = []
    for metric in found["metric"].unique():
        shown = formatted(found, metric)
        lines = ["| " + " | ".join(map(str, row)) + " |" for row in shown.itertuples(index=False)]
        head = "| " + " | ".join(shown.columns) + " |"
        rule = "|" + "---|" * len(shown.columns)
        parts.append("\n".join([f"Test {METRICS[metric].title}:", "", head, rule, *lines]))
    return "\n\n".join(parts) + "\n"


def write(found: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """Write the table as CSV and Markdown and the figure as PNG, SVG and PDF."""
    from ..report.plots import label_fractions, save

    paths = [folder / f"study-{name}.{kind}" for kind in ("csv", "md", "png", "svg", "pdf")]
    figure: Any = label_fractions(found)
    for path in paths:
        with atomic_path(path) as temporary:
            if path.suffix == ".csv":
                found.to_csv(temporary, index=False)
            elif path.suffix == ".md":
                temporary.write_text(markdown(found))
            else:
                save(figure, temporary, path.suffix[1:])
    return paths
