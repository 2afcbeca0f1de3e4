"""The comparison as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from featreg.datasets.shards import atomic_path

from . import plots
from .compare import Group, Result, alphas, differences, notes, table
from .metrics import METRICS

MOST_GROUPS = 6
"""A plot holds no more groups than this; the table holds them all."""

MOST_MAPS = 4
"""The embedding map holds no more groups than this."""


def write_report(path: Path, groups: Sequence[Group]) -> None:
    """Write the report of `groups`, atomically."""
    first = groups[0].results[0]
    template = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    seeds = max(len(each.results) for each in groups)
    html = (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            title=f"featreg: {first.config.dataset}",
            data=first.about["data"],
            notes=notes(groups),
            metric=METRICS[first.config.metric].title,
            table=Markup(table(groups).to_html(index=False, border=0)),
            spread_note=(
                f"Mean ± sample standard deviation over up to {seeds} seeds."
                if seeds > 1
                else "One seed each: how far the numbers vary from seed to seed is not known."
            ),
            sentences=differences(groups) + alphas(groups),
            undefined=first.report["undefined"].get(first.config.metric, []),
            figures=_figures(groups),
            runs=[_origin(result) for each in groups for result in each.results],
        )
    )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _figures(groups: Sequence[Group]) -> list[dict[str, str]]:
    shown = groups[:MOST_GROUPS]
    return [
        {
            "title": "Learning curves",
            "image": plots.learning_curves(shown),
            "caption": "Thick lines are means over seeds, thin lines single seeds.",
        },
        {
            "title": "Average precision of each class",
            "image": plots.per_class(shown),
            "caption": "Test split, mean over seeds. Chance is the share of clips with the class.",
        },
        {
            "title": "Embedding map",
            "image": plots.embedding_map(groups[:MOST_MAPS]),
            "caption": "Test clips by the time-averaged embedding of their audio (t-SNE of cosine "
            "distances, equal settings, first seed of each method); in colour the clips "
            "of one class, for the three classes that the first method finds best. "
            "Distances between far clusters mean nothing in such a map.",
        },
    ]


def _origin(result: Result) -> dict[str, Any]:
    about, config = result.about, result.config
    return {
        "name": result.folder.name,
        "command": about["command"],
        "seed": config.seed,
        "value": f"{result.report['test'][config.metric]:.3f}",
        "interval": [f"{end:.3f}" for end in result.report["intervals"][config.metric]],
        "alpha": f"{config.alpha:g}",
        "best_epoch": result.report["best_epoch"],
        "epochs": len(result.curves),
        "seconds": round(result.report["seconds"]),
        "device": about["machine"]["device"],
        "precision": config.recipe.precision,
        "started": about["started"],
        "versions": about["versions"],
        "fingerprint": about["data"]["fingerprint"],
    }
