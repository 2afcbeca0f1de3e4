"""A configuration as the command line that asks for it."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ..config.options import alpha_option, config_options
from ..config.presets import PRESETS, Config, preset_for

_ALWAYS = ("dataset", "aligned", "metric", "seed")
"""Written even where the data leave no choice: tomorrow they may."""


def arguments(config: Config) -> list[str]:
    """The options of ``train run`` that give `config`, and no others.

    What the preset decides is left out, as is what a run does not use. `configure`
    makes the same configuration of them, on the same machine and on any other that has
    the device.
    """
    asked = config.to_json()
    asked |= asked.pop("recipe") | {"features": "+".join(config.features)}
    usual = json.loads(json.dumps(dataclasses.asdict(PRESETS[config.preset])))
    usual |= {"preset": preset_for(config.dataset), "features": "", "fusion": "none"}
    usual |= {"reg": None if config.method == "baseline" else "none"}
    usual |= {"alpha": None if config.reg != "none" else 0.0, "fraction": 1.0, "devices": 1}
    words = []
    for option in _options():
        name = str(option.name)
        if name in asked and (name in _ALWAYS or asked[name] != usual[name]):
            words += _spell(option, asked[name])
    return words


def command(config: Config) -> str:
    """What to type for this run: ``train run --dataset demo --reg conreg ...``."""
    return shlex.join(["train", "run", *arguments(config)])


def typed() -> str:
    """What this process was asked for: ``train table1 --seeds 3``."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _options() -> Sequence[click.Parameter]:
    nothing = click.Command("run")
    config_options(alpha_option(nothing))
    return nothing.params[::-1]  # decorators add the last one first


def _spell(option: click.Parameter, value: object) -> list[str]:
    if isinstance(value, bool):
        return [(option.opts if value else option.secondary_opts)[0]]
    short = f"{value:g}" if isinstance(value, float) else str(value)
    exact = isinstance(value, float) and float(short) != value
    return [option.opts[0], repr(value) if exact else short]
