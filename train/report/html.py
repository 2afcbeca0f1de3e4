"""Runs and tables as one HTML file that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup, escape

from featreg.datasets.shards.hdf5 import atomic_path

from ..evaluation.metrics import METRICS
from ..experiments import ablate, params, table1
from ..experiments.compare import Group, Result, alphas, common, differences, notes, table
from . import plots
from .print_table import UNKNOWN

MOST_GROUPS = 6
"""A plot holds no more groups than this; tables hold them all."""

MOST_ROWS = 12
"""A longer table of classes is folded."""

MOST_MAPS = 3
"""The embedding map holds no more groups than this."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it, from top to bottom; empty parts are left out."""

    title: str
    paragraphs: Sequence[str] = ()
    table: pd.DataFrame | None = None
    image: str = ""
    caption: str = ""
    points: Sequence[str] = field(default_factory=tuple)
    folded: str = ""  # words that unfold the table; empty where it lies open
    left_out: Sequence[str] = ()  # what is not drawn; folded

    @property
    def html(self) -> Markup:
        """The table; its cells are escaped, and names of combined features may be broken at +."""
        if self.table is None:
            return Markup("")
        kinds = ["features"] if "features" in self.table.columns[1:2] else None
        html = self.table.to_html(index=False, border=0, classes=kinds)
        return Markup(html.replace("+", "+<wbr>"))


def write_report(path: Path, groups: Sequence[Group], reports: Path | None = None) -> None:
    """Write the report of `groups`, atomically.

    Parameters
    ----------
    path
        The HTML file.
    groups
        Of one dataset.
    reports
        Folder whose table and figures of this dataset are part of the report; None for
        a report of the groups alone.
    """
    dataset = groups[0].config.dataset
    tabled = table1.read(reports.parent, dataset) if reports else None
    rows = tabled.rows if tabled else []
    shown = headline(groups, rows) if reports else list(groups)
    sections = _table_one(tabled) if tabled else []
    sections += _ablations(reports, dataset) if reports else []
    sections += [_results(groups, shown), *_figures(groups, shown)]
    if reports and (counts := params.read(reports)):
        said = [params.caption(counts), f"Made by `{params.command(counts)}`."]
        sections.append(Section("Parameters (Table II)", said, params.in_words(counts)))
    write_page(path, f"featreg: {dataset}", _lead(groups), sections, groups)


def write_table_one(
    path: Path, rows: Sequence[table1.Row], groups: Sequence[Group], said: Sequence[str]
) -> None:
    """Write Table I, what must be said of it, and where its numbers come from, atomically."""
    if len(_by_dataset(groups)) > 1:
        groups = [replace(each, label=f"{each.config.dataset}: {each.label}") for each in groups]
    title = "Methods, features, datasets"
    section = Section(title, (), table1.wide(rows), points=said)
    differ = Section("Against the baseline", points=differences(groups))
    lead = [line for each in _by_dataset(groups) for line in _lead(each)]
    write_page(path, "featreg: Table I", lead, [section, differ], groups)


def write_page(
    path: Path,
    title: str,
    lead: Sequence[str],
    sections: Sequence[Section],
    groups: Sequence[Group],
) -> None:
    """Write a page of sections that ends with where the numbers come from.

    Parameters
    ----------
    path
        The HTML file, written atomically.
    title, lead
        What the page is, and the paragraphs below.
    sections
        From top to bottom.
    groups
        The runs.
    """
    template = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    circumstances = {_circumstances(result) for each in groups for result in each.results}
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["worded"] = _worded
    html = environment.from_string(template).render(
        title=title,
        lead=lead,
        sections=sections,
        shared=circumstances.pop() if len(circumstances) == 1 else "",
        origins=[_origin(each) for each in groups],
    )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _worded(text: str) -> Markup:
    """A sentence, escaped, with what stands between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def headline(groups: Sequence[Group], rows: Sequence[table1.Row]) -> list[Group]:
    """The groups that plots choose from: those in the table, or else those with every clip.

    A group is in the table if one of its runs is: seeds may have been added since.

    First the baseline, then what is regularized, then the other methods.
    """
    names = {name for row in rows for name in row.runs.split()}
    tabled = [each for each in groups if names & {run.folder.name for run in each.results}]
    full = [each for each in groups if each.config.fraction == 1]
    chosen = tabled or full or groups

    def rank(each: Group) -> tuple[bool, bool]:
        return each.config.method != "baseline", each.config.reg == "none"

    return sorted(chosen, key=rank)


def _by_dataset(groups: Sequence[Group]) -> list[list[Group]]:
    names = dict.fromkeys(each.config.dataset for each in groups)
    return [[each for each in groups if each.config.dataset == name] for name in names]


def _lead(groups: Sequence[Group]) -> list[str]:
    data = groups[0].results[0].about["data"]
    full = max(result.about["data"]["clips"]["train"] for each in groups for result in each.results)
    clips = data["clips"]
    about = (
        f"{data['dataset']}: {full} training, {clips['valid']} validation and {clips['test']} test "
        f"clips, {len(data['classes'])} classes. The epoch with the best {_selecting(groups)} on "
        "the validation split was tested, once; a clip's probability is the mean over its "
        "evaluation chunks."
    )
    lines = [about, *notes(groups)]
    if shared := common(groups):
        lines.append(f"All runs: {', '.join(shared)}.")
    return lines


def _metrics(groups: Sequence[Group]) -> list[str]:
    """What selected epochs: a metric for each group, each once."""
    return list(dict.fromkeys(each.config.metric for each in groups))


def _selecting(groups: Sequence[Group]) -> str:
    titles = [METRICS[metric].title for metric in _metrics(groups)]
    return titles[0] if len(titles) == 1 else f"{' or '.join(titles)} (each run's --metric)"


def _table_one(table: table1.Table) -> list[Section]:
    if not table.rows:
        return []
    points = table1.notes(table.rows, table.missing)
    title = "Methods and features (Table I)"
    return [Section(title, (), table1.wide(table.rows), points=points)]


def _ablations(reports: Path, dataset: str) -> list[Section]:
    sections = []
    for found in ablate.read(reports, dataset):
        last = ablate.regularized(found)
        made = last.get("command", "train ablate")
        sections.append(
            Section(
                f"Fewer training clips: {last['method']}, {last['features']} (Figure 2)",
                [f"Made by `{made}`."],
                image=plots.address(plots.ablation(found)),
                caption=ablate.caption(found),
            )
        )
    return sections


def _results(groups: Sequence[Group], shown: Sequence[Group]) -> Section:
    first = groups[0].results[0]
    seeds = max(len(each.results) for each in groups)
    note = (
        f"Mean ± sample standard deviation over up to {seeds} seeds."
        if seeds > 1
        else "One seed each: how far the numbers vary from seed to seed is not known."
    )
    for metric in _metrics(groups):
        if undefined := first.report["undefined"].get(metric, []):
            note += (
                f" Left out of the {METRICS[metric].title}, for want of test clips that have the "
                f"class: {', '.join(undefined)}."
            )
    points = differences(shown) + alphas(shown)
    return Section("Every run, on the test split", [note], table(groups), points=points)


def _figures(groups: Sequence[Group], shown: Sequence[Group]) -> list[Section]:
    """Of the groups with the first's test set: others have other clips, or other classes."""
    alike = [each for each in shown if each.test_set == shown[0].test_set]
    drawn = alike[:MOST_GROUPS]
    apart = " Groups with another test set are not drawn." if len(alike) < len(shown) else ""
    maps = [each for each in drawn if each.config.reg != "none" or each is drawn[0]]
    left = [
        each.label + ("" if each.test_set == drawn[0].test_set else ": another test set")
        for each in groups
        if each not in drawn
    ]
    return [
        Section(
            "Learning curves",
            [_how_many(len(drawn), len(groups))] if left else [],
            image=plots.address(plots.learning_curves(drawn)),
            caption="Thick lines are means over seeds, thin lines single seeds." + apart,
            left_out=left,
        ),
        Section(
            "Class by class",
            image=plots.address(plots.per_class(drawn)),
            caption="Average precision on the test split, mean over seeds. Chance is the share of "
            "clips that have the class." + apart,
        ),
        _per_class(alike),
        Section(
            "Embeddings with and without regularization",
            image=plots.address(plots.embedding_map(maps[:MOST_MAPS])),
            caption="Test clips by the time-averaged embedding of their audio, first seed of each "
            "method; in colour the clips of one class, for the three classes that the first "
            "method finds best. One projection for all: each model's embeddings are rotated "
            "onto the first's, which changes no cosine within a model, and all are projected "
            "together (t-SNE of cosine distances), so that places mean the same in every map. "
            "Distances between far clusters mean nothing in such a map." + apart,
        ),
    ]


def _how_many(drawn: int, every: int) -> str:
    return (
        f"{drawn} of {every} groups of runs are drawn, here and below; maps hold at most "
        f"{MOST_MAPS}. `train compare RUN...` draws the runs that it names, up to {MOST_GROUPS} "
        "groups."
    )


def _per_class(groups: Sequence[Group]) -> Section:
    """The picture's numbers: classes down, groups of one test set across."""
    counts = groups[0].results[0].classes["positives"]
    cells = {
        each.label: [
            f"{value:.3f}" if value == value else UNKNOWN  # NaN equals nothing
            for value in each.precision[counts.index]
        ]
        for each in groups
    }
    found = pd.DataFrame({"class": counts.index, "test clips": counts.to_numpy(), **cells})
    said = (
        "Average precision on the test split, mean over seeds; test clips are those that have the "
        f"class, and {UNKNOWN} stands where there is none."
    )
    folded = f"All {len(found)} classes" if len(found) > MOST_ROWS else ""
    return Section("Class by class, in numbers", [said], found, folded=folded)


def _circumstances(result: Result) -> str:
    about = result.about
    versions = about["versions"]
    return (
        f"{about['machine']['device']} in {result.config.recipe.precision}; featreg "
        f"{versions['featreg']}, torch {versions['torch']}, Python {versions['python']}; shards "
        f"{about['data']['fingerprint'][:16]} of {result.config.dataset}/{result.config.aligned}"
    )


def _origin(group: Group) -> dict[str, Any]:
    metric = group.config.metric
    return {
        "label": group.label,
        "commands": list(dict.fromkeys(result.about["command"] for result in group.results)),
        "circumstances": list(dict.fromkeys(map(_circumstances, group.results))),
        "metric": METRICS[metric].title,
        "runs": [
            {
                "name": result.folder.name,
                "seed": result.config.seed,
                "value": f"{result.report['test'][metric]:.3f}",
                "interval": [f"{end:.3f}" for end in result.report["intervals"][metric]],
                "best_epoch": result.report["best_epoch"],
                "epochs": len(result.curves),
                "seconds": round(result.report["seconds"]),
                "started": result.about["started"][:16].replace("T", " "),
            }
            for result in group.results
        ],
    }
