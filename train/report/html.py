"""Reports of runs and tables as self-contained HTML files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup, escape

from featreg.datasets.shards.hdf5 import atomic_path

from ..evaluation.metrics import METRICS
from ..experiments import ablate, params, table1
from ..experiments.compare import Group, common, table
from ..experiments.differences import alphas, ceilings, differences, notes
from . import plots
from .figures import figures
from .origins import circumstances_of, numbered, selected
from .section import Section


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
    sections += [_results(groups, shown), *figures(groups, shown, path.with_suffix(""))]
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
