"""Reports of runs and tables as self-contained HTML files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup, escape

from featreg.datasets.shards.hdf5 import atomic_path

from ..evaluation.metrics import METRICS
from ..experiments import ablate, params, table1
from ..experiments.compare import Group, common, table
from ..experiments.differences import alphas, ceilings, differences, notes
from . import plots
from .origins import circumstances_of, numbered, selected
from .print_table import UNKNOWN

MOST_GROUPS = 6
"""Maximum number of groups in a plot; tables contain all groups."""

MOST_ROWS = 12
"""Number of classes above which the table of classes is collapsed."""

MOST_MAPS = 3
"""Maximum number of groups in the embedding map."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the contents below it, from top to bottom; empty parts are omitted."""

    title: str
    paragraphs: Sequence[str] = ()
    table: pd.DataFrame | None = None
    image: str = ""
    caption: str = ""
    points: Sequence[str] = field(default_factory=tuple)
    folded: str = ""  # summary of a collapsed table; empty for an open one
    left_out: Sequence[str] = ()  # collapsed list of the groups that are not drawn

    @property
    def html(self) -> Markup:
        """Return the table with escaped cells and possible line breaks after +."""
        if self.table is None:
            return Markup("")
        kinds = ["features"] if "features" in self.table.columns[1:2] else None
        html = self.table.to_html(index=False, border=0, classes=kinds)
        return Markup(html.replace("+", "+<wbr>"))


def write_report(path: Path, groups: Sequence[Group], reports: Path | None = None) -> None:
    """Write a report of `groups`, atomically.

    Parameters
    ----------
    path
        The HTML file.
    groups
        Groups of runs on one dataset.
    reports
        Folder with tables and figures of the dataset to include in the report; None for none.
    """
    dataset = groups[0].config.dataset
    tabled = table1.read(reports.parent, dataset) if reports else None
    rows = tabled.rows if tabled else []
    shown = headline(groups, rows) if reports else list(groups)
    sections = _table_one(tabled) if tabled else []
    sections += _ablations(reports, dataset) if reports else []
    sections += [_results(groups, shown), *_figures(groups, shown, path.with_suffix(""))]
    if reports and (counts := params.read(reports)) is not None:
        text = [params.caption(counts), f"Created by `{params.command(counts)}`."]
        sections.append(Section("Parameters (Table II)", text, params.formatted(counts)))
    write_page(path, f"featreg: {dataset}", _lead(groups), sections, groups)


def write_table_one(
    path: Path, rows: Sequence[table1.Row], groups: Sequence[Group], notes: Sequence[str]
) -> None:
    """Write a page with Table I, its notes and the provenance of its numbers, atomically."""
    if len(_by_dataset(groups)) > 1:
        groups = [replace(each, label=f"{each.config.dataset}: {each.label}") for each in groups]
    title = "Methods, features and datasets"
    section = Section(title, (), table1.wide(rows), points=notes)
    comparison = Section("Comparison with the baseline", points=differences(groups))
    lead = [line for each in _by_dataset(groups) for line in _lead(each)]
    write_page(path, "featreg: Table I", lead, [section, comparison], groups)


def write_page(
    path: Path,
    title: str,
    lead: Sequence[str],
    sections: Sequence[Section],
    groups: Sequence[Group],
) -> None:
    """Write a page of sections, followed by the provenance of the numbers, atomically.

    Parameters
    ----------
    path
        The HTML file.
    title, lead
        Title of the page, and the paragraphs below it.
    sections
        The sections, from top to bottom.
    groups
        The groups of runs whose provenance is listed.
    """
    template = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    circumstances = {circumstances_of(result) for each in groups for result in each.results}
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        prose=_prose, circumstances=circumstances_of, selected=selected, numbered=numbered
    )
    html = environment.from_string(template).render(
        title=title,
        lead=lead,
        sections=sections,
        shared=circumstances.pop() if len(circumstances) == 1 else "",
        groups=groups,
        metrics=METRICS,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _prose(text: str) -> Markup:
    """Escape a text, and format parts between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def headline(groups: Sequence[Group], rows: Sequence[table1.Row]) -> list[Group]:
    """Select the groups for the plots: those in Table I, or else those with all training clips.

    A group is in the table if at least one of its runs is, since seeds may have been added.

    Returns
    -------
    The baseline, followed by the regularized methods and the other methods.
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
        f"clips, {len(data['classes'])} classes. Each run was tested once, at the epoch (a probe: "
        f"with the regularization) with the best {_selecting(groups)} on the validation split. The "
        "probabilities of a clip are means over its evaluation chunks (a probe sees whole clips)."
    )
    lines = [about, *notes(groups)]
    if shared := common(groups):
        lines.append(f"All runs: {', '.join(shared)}.")
    return lines


def _metrics(groups: Sequence[Group]) -> list[str]:
    """Return the metrics by which the epochs were selected, each once."""
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
                [f"Created by `{made}`."],
                image=plots.data_uri(plots.ablation(found)),
                caption=ablate.caption(found),
            )
        )
    return sections


def _results(groups: Sequence[Group], shown: Sequence[Group]) -> Section:
    first = groups[0].results[0]
    seeds = max(len(each.samples(each.config.metric)) for each in groups)
    noun = "folds, each the mean over its seeds" if groups[0].folds else "seeds"
    note = (
        f"Mean ± sample standard deviation over up to {seeds} {noun}."
        if seeds > 1
        else "One seed per method, so that the variation between seeds is unknown."
    )
    note += " In brackets: 95 % confidence intervals, from resampled test clips or groups."
    for metric in _metrics(groups):
        if undefined := first.report["undefined"].get(metric, []):
            note += (
                f" The {METRICS[metric].title} excludes the classes for which it is undefined on "
                f"the test split: {', '.join(undefined)}."
            )
    points = differences(shown) + ceilings(shown) + alphas(shown)
    return Section(
        "All runs on the test split", [note], table(groups, intervals=True), points=points
    )


def _figures(groups: Sequence[Group], shown: Sequence[Group], stem: Path) -> list[Section]:
    """Return the figures of the groups with the same test set as the first group.

    Each is also written as a file, such as ``STEM-curves.pdf``.
    """
    alike = [each for each in shown if each.test_set == shown[0].test_set]
    drawn = alike[:MOST_GROUPS]
    trained = [each for each in drawn if not each.config.probe]
    apart = " Groups with another test set are not shown." if len(alike) < len(shown) else ""
    maps = [each for each in trained if each.config.reg != "none" or each is trained[0]]
    omitted = [
        each.label + ("" if each.test_set == drawn[0].test_set else ": another test set")
        for each in groups
        if each not in drawn
    ]
    many = [_how_many(len(drawn), len(groups))] if omitted else []
    curves = Section(
        "Learning curves",
        many,
        image=plots.publish(plots.learning_curves(trained), stem, "curves") if trained else "",
        caption="Thick lines are means over seeds, thin lines are single seeds." + apart,
        left_out=omitted,
    )
    return [
        *([curves] if trained else []),
        Section(
            "Average precision per class",
            image=plots.publish(plots.per_class(drawn), stem, "classes"),
            caption="Average precision on the test split, mean over seeds. Chance is the fraction "
            "of clips with the class." + apart,
        ),
        _per_class(alike),
        *([_maps(maps[:MOST_MAPS], apart, stem)] if maps else []),
    ]


def _maps(groups: Sequence[Group], apart: str, stem: Path) -> Section:
    return Section(
        "Embeddings with and without regularization",
        image=plots.publish(plots.embedding_map(groups), stem, "embeddings"),
        caption="Projections of the time-averaged embeddings of the test clips, for the first "
        "seed of each method. Each row highlights the clips of one class; the classes are the "
        "three with the highest average precision in the first method. The embeddings of each "
        "model are rotated onto those of the first model, which preserves the cosines within a "
        "model, and then projected together (t-SNE of cosine distances), so that positions "
        "are comparable between maps. Distances between remote clusters are not meaningful."
        + apart,
    )


def _how_many(drawn: int, total: int) -> str:
    return (
        f"The figures show {drawn} of {total} groups of runs, and the maps at most {MOST_MAPS}. "
        f"To select others, name up to {MOST_GROUPS} groups of runs: `train compare RUN...`."
    )


def _per_class(groups: Sequence[Group]) -> Section:
    """Return the numbers of the figure as a table of classes (rows) and groups (columns)."""
    counts = groups[0].positives
    cells = {
        each.label: [
            f"{value:.3f}" if value == value else UNKNOWN  # NaN
            for value in each.precision[counts.index]
        ]
        for each in groups
    }
    found = pd.DataFrame({"class": counts.index, "test clips": counts.to_numpy(), **cells})
    text = (
        "Average precision on the test split, mean over seeds. Test clips are the clips with the "
        f"class; {UNKNOWN} means that there are none."
    )
    folded = f"All {len(found)} classes" if len(found) > MOST_ROWS else ""
    return Section("Average precision per class, in numbers", [text], found, folded=folded)
