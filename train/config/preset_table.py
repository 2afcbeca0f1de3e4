"""Table of what each preset sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from .config import word
from .presets import ALPHAS, PRESETS


def preset_table() -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the settings in which presets differ, and those that all presets share.

    Returns
    -------
    Table with one row per setting and one column per preset; dict of the shared settings.
    """
    settings: dict[str, list[str]] = {}
    for name in dataclasses.asdict(PRESETS["default"]):
        values = [_text(getattr(recipe, name)) for recipe in PRESETS.values()]
        settings[name.removesuffix("_s").replace("_", "-")] = values
    regularizers = sorted({name for alphas in ALPHAS.values() for name in alphas})
    for reg in regularizers:
        values = [_text(ALPHAS.get(preset, {}).get(reg, "paper's")) for preset in PRESETS]
        settings[f"alpha of {reg}"] = values
    rows = [[name, *values] for name, values in settings.items() if len(set(values)) > 1]
    shared = {name: values[0] for name, values in settings.items() if len(set(values)) == 1}
    return pd.DataFrame(rows, columns=["setting", *PRESETS]), shared


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {word(item)}" for name, item in value.items()) or "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    return word(value)
