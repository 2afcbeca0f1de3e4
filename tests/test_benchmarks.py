"""`make bench` knows every benchmark, and can read what each prints."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from click.core import ParameterSource
from command_lines import BENCHMARKS, benchmark

sys.path.insert(0, str(BENCHMARKS))  # where a script finds its neighbours
from run_all import SCRIPTS, machine, rows, table


def test_every_benchmark_is_run() -> None:
    commands = {
        path.stem for path in BENCHMARKS.glob("*.py") if "@click.command" in path.read_text()
    } - {"run_all"}
    assert set(SCRIPTS) == commands


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("quick", [False, True])
def test_its_options_are_those_of_the_script(name: str, quick: bool) -> None:
    words = SCRIPTS[name][quick].split()
    command = benchmark(f"{name}.py")
    context = command.make_context(name, list(words))
    given = {each.name for each in command.params if {*each.opts} & {*words}}
    assert given == {
        each
        for each in context.params
        if context.get_parameter_source(each) is ParameterSource.COMMANDLINE
    }


def test_what_is_printed_becomes_a_table() -> None:
    output = "step, 2 threads\n  featreg      1.2 s\n  published    2.4 s   ratio 2.0\n"
    assert list(rows("train", output)) == [
        ("train: step, 2 threads", "featreg 1.2 s"),
        ("train: step, 2 threads", "published 2.4 s ratio 2.0"),
    ]
    assert list(rows("scheduler", "500 jobs a second\n")) == [("scheduler", "500 jobs a second")]
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="it describes Linux machines")
def test_the_machine_is_described() -> None:
    found = dict(machine())
    assert re.match(r"\d+ of \d+$", found["cores"])
    assert int(found["memory"].split()[0]) >= 1
    assert found["torch"][0].isdigit()
