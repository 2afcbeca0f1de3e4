"""Where the numbers of a report come from: commands, versions, machines, shards and runs."""

from __future__ import annotations

from ..experiments.compare import Result


def circumstances_of(result: Result) -> str:
    """Return the machine, the versions and the shards of a run in one line."""
    about = result.about
    versions = about["versions"]
    return (
        f"{about['machine']['device']} in {result.config.recipe.precision}; featreg "
        f"{versions['featreg']}, torch {versions['torch']}, Python {versions['python']}; shards "
        f"{about['data']['fingerprint'][:16]} of {result.config.dataset}/{result.config.aligned}"
    )


def numbered(result: Result) -> str:
    """Return the seed of a run, and its fold if it has one."""
    fold, seed = result.config.fold, f"seed {result.config.seed}"
    return f"fold {fold.tested}, {seed}" if fold else seed


def selected(result: Result) -> str:
    """Return what the validation split selected, such as ``best epoch 3 of 24``."""
    number, curves = result.report["best_epoch"], result.curves
    if not result.config.probe:
        return f"best epoch {number} of {len(curves)}"
    row = curves.iloc[number - 1]
    names = [name for name in ("C", "weight_decay", "epoch") if name in curves]
    return ", ".join(f"{name.replace('_', ' ')} {row[name]:.3g}" for name in names)
