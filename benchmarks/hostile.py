"""The hostile kit: unusual, damaged and malicious inputs, and how featreg handles each.

    python benchmarks/hostile.py --quick
    python benchmarks/hostile.py --only flips --seed 3

Every input is generated and used as a user would use it. It must either be accepted with the
correct content, which is known because the kit wrote it, or be rejected with a one-line error
that names it. Everything else (wrong content, a traceback, a hang) is a failure, printed with
the command that repeats it. The exit status is 1 if there are failures. Everything happens in a
temporary folder, and SIGTERM ends the kit and all processes that it has started.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import importlib
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
from hostile_kit import (
    base_work,
    chained,
    containers,
    flips,
    headers,
    labels,
    mp3_headers,
    predict,
    resources,
    run_folders,
    shards,
    values,
    weights,
)
from hostile_kit.cases import HANG, OUTCOMES, REFUSED, TRACEBACK, WRONG, Case, Kit
from hostile_kit.pool import run_cases

AUDIO_MEMORY = 3 << 30
COMMAND_MEMORY = 16 << 30

# For each kind: the function that creates its cases, and the address space of their processes.
KINDS: dict[str, tuple[Callable[..., Iterator[Case]], int]] = {
    "containers": (containers.whole, AUDIO_MEMORY),
    "excerpts": (containers.excerpts, AUDIO_MEMORY),
    "flips": (flips.cases, AUDIO_MEMORY),
    "truncated": (containers.truncated, AUDIO_MEMORY),
    "chained": (chained.cases, AUDIO_MEMORY),
    "headers": (headers.cases, AUDIO_MEMORY),
    "values": (values.cases, COMMAND_MEMORY),
    "mp3": (mp3_headers.cases, AUDIO_MEMORY),
    "labels": (labels.cases, COMMAND_MEMORY),
    "runs": (run_folders.cases, COMMAND_MEMORY),
    "shards": (shards.cases, COMMAND_MEMORY),
    "weights": (weights.cases, COMMAND_MEMORY),
    "predict": (predict.cases, COMMAND_MEMORY),
    "resources": (resources.cases, COMMAND_MEMORY),
}
# Kinds that need a working folder with features and trained runs.
ON_RUNS = ("runs", "shards", "predict", "resources")
FAILURES = (WRONG, TRACEBACK, HANG)


def table(counts: dict[str, Counter[str]]) -> Iterator[str]:
    """Print the outcomes by kind, and in total."""
    heads = ("inputs", *OUTCOMES)
    total: Counter[str] = sum(counts.values(), Counter())
    yield "  ".join(["kind".ljust(12), *heads])
    for name, count in [*counts.items(), ("total", total)]:
        values = [sum(count.values()), *(count[outcome] for outcome in OUTCOMES)]
        cells = [f"{value:,}".rjust(len(head)) for value, head in zip(values, heads, strict=True)]
        yield "  ".join([name.ljust(12), *cells])


def trained(folder: Path) -> Path:
    """Create the working folder with trained runs, and import torch, once for all forks."""
    base = folder / "base"
    if not base.exists():
        for name in ("torch", "lightning.fabric", "sklearn.metrics", "pandas", "matplotlib.figure"):
            importlib.import_module(name)
        base.mkdir()
        base_work.build(base)
    return base / "work"


@click.command(context_settings={"show_default": True})
@click.option("--only", multiple=True, type=click.Choice(list(KINDS)), help="Only these kinds.")
@click.option("--case", "wanted", help="Only the inputs whose name contains this.")
@click.option("--seed", default=0, help="Seed of all that is random.")
@click.option("--quick", is_flag=True, help="A small sample of each kind, in about a minute.")
@click.option("--processes", default=os.cpu_count() or 1, help="Inputs at a time.")
@click.option("--show-refused", is_flag=True, help="Print the refusals as well.")
def main(
    only: Sequence[str],
    wanted: str | None,
    seed: int,
    quick: bool,
    processes: int,
    show_refused: bool,
) -> None:
    """Run the hostile kit, and count the outcomes.

    Example: python benchmarks/hostile.py --only flips --seed 3
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    counts: dict[str, Counter[str]] = {}
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hostile-") as temporary:
        for kind in only or KINDS:
            make, memory = KINDS[kind]
            folder = Path(temporary) / kind
            folder.mkdir()
            kit = Kit(folder, seed, quick)
            made = make(kit, trained(Path(temporary))) if kind in ON_RUNS else make(kit)
            cases = [case for case in made if wanted is None or wanted in case.name]
            counts[kind] = Counter()
            again = f"python {sys.argv[0]} --only {kind} --seed {seed}"
            for case, result in run_cases(cases, processes, folder, memory):
                counts[kind][result.outcome] += 1
                if result.outcome in FAILURES:
                    click.echo(f"{result.outcome}: {case.name}: {result.detail}")
                    click.echo(f"    {again} --case {case.name}")
                elif show_refused and result.outcome == REFUSED:
                    click.echo(f"{result.outcome}: {case.name}: {result.detail}")
    for line in table(counts):
        click.echo(line)
    click.echo(f"{time.monotonic() - begin:.0f} s with {processes} processes")
    if any(count[outcome] for count in counts.values() for outcome in FAILURES):
        sys.exit(1)


if __name__ == "__main__":
    main()
