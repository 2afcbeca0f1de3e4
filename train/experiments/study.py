"""A study: several methods with several fractions of the labels and several seeds, from a file.

The recipe of a study is a YAML file; `benchmarks/few-labels.yaml` is one, with comments. Each run
is a ``train`` command, so that every number can be traced to a line that can be typed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import yaml

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.console import progress, say

from ..training.run_dir import RunDir

LOG = "study.log"


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a study.

    Attributes
    ----------
    command
        Words after ``train``, such as ``run --reg hint --features musicnn``.
    pretraining
        Name in `Study.pretraining` of the run that ``--init`` starts from; empty for none.
    """

    command: Sequence[str]
    pretraining: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """The recipe of a study.

    Attributes
    ----------
    name
        Name of the study, with which its runs begin.
    options
        Words that are added to every command.
    network_options
        Words that are added to every command but ``probe``.
    label_fractions
        Fraction of the labels, in (0, 1] -> words that are added to the ``run`` commands.
    seeds
        Seeds of every method with every fraction.
    group
        ``COLUMN`` or ``FILE.csv:COLUMN`` with the group of each clip, such as its recording;
        the intervals are by group. Empty for intervals by clip.
    pretraining
        Name -> words of a ``pretrain`` command, which runs once per seed.
    methods
        Name -> method, in the order of the table. The first is the baseline.
    """

    name: str
    options: Sequence[str]
    network_options: Sequence[str]
    label_fractions: Mapping[float, Sequence[str]]
    seeds: Sequence[int]
    group: str
    pretraining: Mapping[str, Sequence[str]]
    methods: Mapping[str, Method]


@dataclass(frozen=True, slots=True)
class Step:
    """One run of a study: its name, and its command without ``train``."""

    run: str
    words: Sequence[str]


def read_study(path: Path) -> Study:
    """Read the recipe of a study.

    Raises
    ------
    UsageError
        If the file is not a recipe.
    """
    try:
        values = yaml.safe_load(path.read_text())
        methods = {
            name: Method(shlex.split(item["command"]), item.get("pretraining", ""))
            if isinstance(item, dict)
            else Method(shlex.split(item))
            for name, item in values.pop("methods").items()
        }
        study = Study(
            name=path.stem,
            options=shlex.split(values.pop("options", "")),
            network_options=shlex.split(values.pop("network_options", "")),
            label_fractions={
                float(fraction): shlex.split(words)
                for fraction, words in values.pop("label_fractions").items()
            },
            seeds=[int(value) for value in values.pop("seeds")],
            group=values.pop("group", ""),
            pretraining={k: shlex.split(v) for k, v in values.pop("pretraining", {}).items()},
            methods=methods,
        )
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: not the recipe of a study ({type(error).__name__}: {error}); it needs "
            "label_fractions, seeds and methods, such as benchmarks/few-labels.yaml"
        ) from None
    if values:
        raise UsageError(f"{path}: unknown keys {', '.join(map(str, values))}")
    missing = {each.pretraining for each in methods.values()} - {"", *study.pretraining}
    if missing:
        raise UsageError(f"{path}: pretraining {', '.join(sorted(missing))} is not defined")
    return study


def run_name(study: Study, method: str, fraction: float, seed: int) -> str:
    """Return the name of a run, such as ``few-labels-hint-10-s0``."""
    return f"{study.name}-{_word(method)}-{100 * fraction:g}-s{seed}"


def pretrainings(study: Study) -> list[Step]:
    """Return the runs without labels, which others start from."""
    used = {each.pretraining for each in study.methods.values()}
    return [
        Step(name, [*words, *study.options, *study.network_options, *_as(seed, name)])
        for key, words in study.pretraining.items()
        if key in used
        for seed in study.seeds
        for name in [_pretraining_name(study, key, seed)]
    ]


def runs(study: Study) -> Iterator[Step]:
    """Yield the runs of all methods, seed by seed, so that a stopped study has whole seeds."""
    for seed in study.seeds:
        for fraction, more in study.label_fractions.items():
            for name, method in study.methods.items():
                run = run_name(study, name, fraction, seed)
                words = [*method.command, *study.options, *_as(seed, run)]
                words += [] if words[0] == "probe" else [*study.network_options, *more]
                words += ["--label-fraction", f"{fraction:g}"]
                if method.pretraining:
                    words += ["--init", _pretraining_name(study, method.pretraining, seed)]
                yield Step(run, words if fraction < 1 else _without_unlabelled(words))


def run_all(work: Path, steps: Sequence[Step], places: Sequence[Mapping[str, str]]) -> None:
    """Run steps that are not finished, one at a time per environment of `places`.

    Raises
    ------
    FeatregError
        If runs failed; the others are still finished, and the message names them.
    """
    todo = [step for step in steps if not _finished(work, step)]
    say(f"{len(steps)} runs: {len(steps) - len(todo)} finished, {len(todo)} to do")
    free: SimpleQueue[Mapping[str, str]] = SimpleQueue()
    for place in places:
        free.put(place)

    def one(step: Step) -> str | None:
        place = free.get()
        try:
            return _run(work, step, place)
        finally:
            free.put(place)

    failures = []
    with ThreadPoolExecutor(len(places)) as pool, progress("runs", len(todo)) as advance:
        try:
            for step, reason in zip(todo, pool.map(one, todo), strict=True):
                advance(note=step.run)
                if reason is not None:
                    failures.append(f"  {step.run}: {reason}")
        except BaseException:  # such as KeyboardInterrupt
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failures:
        raise FeatregError(
            f"{len(failures)} of {len(todo)} runs failed; run the same command again to repeat "
            "these only:\n" + "\n".join(failures)
        )


def _run(work: Path, step: Step, place: Mapping[str, str]) -> str | None:
    """Run a step in a process of its own; return None, or the reason of its failure."""
    done = subprocess.run(
        [sys.executable, "-m", "featreg.train", *step.words],
        env={**os.environ, **place, "FEATREG_WORK": str(work)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode == 0:
        return None
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    return f"{last.removeprefix('error: ')} (exit status {done.returncode})"


def _finished(work: Path, step: Step) -> bool:
    """Whether a run is finished that was started by the same command."""
    run = RunDir(work / "runs" / step.run)
    return run.finished and shlex.split(run.read_json("config.json")["command"])[1:] == step.words


def _pretraining_name(study: Study, key: str, seed: int) -> str:
    return f"{study.name}-{_word(key)}-s{seed}"


def _as(seed: int, name: str) -> list[str]:
    return ["--seed", str(seed), "--run-name", name]


def _without_unlabelled(words: Sequence[str]) -> Sequence[str]:
    """Remove ``--unlabelled-batch N``: with all labels there are no unlabelled clips."""
    if "--unlabelled-batch" not in words:
        return words
    at = words.index("--unlabelled-batch")
    return [*words[:at], *words[at + 2 :]]


def _word(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())
