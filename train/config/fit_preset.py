"""Choice of a preset that suits the data and the machine, if the dataset has none of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from featreg.datasets.console import say

from .presets import PRESETS

FEW_CLIPS = 5000
"""Number of clips below which a dataset gets the preset for small data.

The datasets of the published network have 25,000 clips and more.
"""

FITTED = ("small-data", "default")
"""Presets from which `choose_preset` chooses for a dataset without one of its own."""


def choose_preset(wanted: str | None, dataset: str, clips: int, device: str) -> str:
    """Return the preset for a run, and say which one is chosen by the data and the machine.

    Parameters
    ----------
    wanted
        Preset that the user selects; None for the dataset's, or one that fits.
    dataset
        Name of the dataset.
    clips
        Number of clips of all splits, so that all fractions and folds have the same preset.
    device
        ``cpu`` or ``cuda``.
    """
    if wanted or dataset in PRESETS:
        return wanted or dataset
    preset, reason = fitted(clips, device)
    _say_once(
        f"preset {preset} for {dataset}, because {reason}; `train presets` lists all, and --preset "
        "selects one"
    )
    return preset


def fitted(clips: int, device: str) -> tuple[str, str]:
    """Return the preset that fits a number of clips and a device, and the reason."""
    if device == "cpu":
        return "small-data", "there is no GPU"
    if clips < FEW_CLIPS:
        return "small-data", f"{clips} clips are few"
    return "default", f"there are {clips} clips and a GPU"


_say_once = lru_cache(None)(say)


def started_preset(
    work: Path, device: str, options: Mapping[str, Any], run_name: str | None
) -> str | None:
    """Return the preset that the options select, else that of the run that they resume, if any.

    A run keeps its preset even if another one would be chosen now, such as on another machine.

    Parameters
    ----------
    work, device, options
        As in `options.configure`.
    run_name
        Name of the run folder; None for the name derived from the options.
    """
    from featreg.datasets.shards.workdir import choose_dataset

    from ..training.run_dir import RunDir, run_dir
    from .choose_data import choose_shards
    from .options import configure

    wanted: str | None = options["preset"]
    if wanted or choose_dataset(work, options["dataset"]).name in PRESETS:
        return wanted
    if run_name is not None:
        run = RunDir(work / "runs" / Path(run_name).name)
        return run.config().preset if (run.path / "config.json").is_file() else None
    if not any((work / "runs").glob("*/config.json")):
        return None
    first, _ = fitted(len(choose_shards(work, options)[2].clips), device)
    for preset in sorted(FITTED, key=lambda name: name != first):
        config = configure(work, device, {**options, "preset": preset})
        if (run_dir(work, config).path / "config.json").is_file():
            return preset
    return None
