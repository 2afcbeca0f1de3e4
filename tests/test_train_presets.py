"""Configurations: their names, their JSON, what `auto` becomes."""

from __future__ import annotations

import dataclasses
import json

from toy_runs import CONREG

from featreg.train.config.config import Config
from featreg.train.config.presets import ALPHAS, PRESETS
from featreg.train.training.build import resolve_precision


def test_run_names_contain_what_differs_from_the_preset() -> None:
    demo = dataclasses.replace(CONREG, dataset="demo", preset="demo", recipe=PRESETS["demo"])
    demo = dataclasses.replace(demo, features=("musicnn",), alpha=0.3)
    assert demo.run_name == "demo-conreg-musicnn-a0.3-s0"
    assert demo.title == "Con-Reg (musicnn, alpha 0.3)"
    changed = dataclasses.replace(demo.recipe, epochs=5, precision="float32")
    assert dataclasses.replace(demo, recipe=changed, fraction=0.1, seed=2).run_name == (
        "demo-conreg-musicnn-a0.3-fraction0.1-epochs5-s2"
    )


def test_a_configuration_survives_json() -> None:
    for preset, recipe in PRESETS.items():
        one = dataclasses.replace(CONREG, preset=preset, recipe=recipe)
        assert Config.from_json(json.loads(json.dumps(one.to_json()))).to_json() == one.to_json()
    assert ALPHAS.keys() <= PRESETS.keys()


def test_precision_is_resolved() -> None:
    assert resolve_precision("float32", "cpu") == "float32"
    assert resolve_precision("auto", "cpu") in ("float32", "bf16-mixed")
