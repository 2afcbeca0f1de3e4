"""Where the numbers of a report come from: commands, versions, machines, shards and runs."""

from __future__ import annotations

from typing import Any

from ..evaluation.metrics import METRICS
from ..experiments.compare import Group, Result


def circumstances_of(result: Result) -> str:
    """Return the machine, the versions and the shards of a run in one line."""
    about = result.about
    versions = about["versions"]
    return (
        f"{about['machine']['device']} in {result.config.recipe.precision}; featreg "
        f"{versions['featreg']}, torch {versions['torch']}, Python {versions['python']}; shards "
        f"{about['data']['fingerprint'][:16]} of {result.config.dataset}/{result.config.aligned}"
    )


def _numbered(result: Result) -> str:
    fold, seed = result.config.fold, f"seed {result.config.seed}"
    return f"fold {fold.tested}, {seed}" if fold else seed


def _selected(result: Result) -> str:
    """Return what the validation split selected, such as ``best epoch 3 of 24``."""
    number, curves = result.report["best_epoch"], result.curves
    if not result.config.probe:
        return f"best epoch {number} of {len(curves)}"
    row = curves.iloc[number - 1]
    names = [name for name in ("C", "weight_decay", "epoch") if name in curves]
    return ", ".join(f"{name.replace('_', ' ')} {row[name]:.3g}" for name in names)


def origin_of(group: Group) -> dict[str, Any]:
    """Return the commands, circumstances and runs behind a group's numbers, for the page."""
    metric = group.config.metric
    return {
        "label": group.label,
        "commands": list(dict.fromkeys(result.about["command"] for result in group.results)),
        "circumstances": list(dict.fromkeys(map(circumstances_of, group.results))),
        "metric": METRICS[metric].title,
        "runs": [
            {
                "name": result.folder.name,
                "seed": _numbered(result),
                "value": f"{result.report['test'][metric]:.3f}",
                "interval": [f"{end:.3f}" for end in result.report["intervals"][metric]],
                "selected": _selected(result),
                "seconds": round(result.report["seconds"]),
                "started": result.about["started"][:16].replace("T", " "),
            }
            for result in group.results
        ],
    }
