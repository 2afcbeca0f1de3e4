"""Many runs: those that are there are used, the others made, side by side where that helps."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.console import progress, say, warn
from featreg.datasets.shards.workdir import DatasetDir

from ..config.options import READERS
from ..config.presets import Config
from ..data.aligned_set import AlignedSet
from ..training.build import require_gpus
from ..training.run_dir import LOG, run_dir
from ..training.versions import typed
from .compare import Group, Result

CORES_PER_RUN = 4
"""A run on the CPU gains little from more; with fewer in all, runs go one after another."""

_OTHERWISE = "give the options that it was made with"


@dataclass(frozen=True, slots=True)
class Runner:
    """Makes runs in a working folder.

    Attributes
    ----------
    work
        The working folder.
    device
        ``cpu`` or ``cuda``.
    jobs
        Runs side by side, each a process with its share of the cores, and with GPUs of
        its own where there are enough; 1: one after another, in this process if each
        trains on one device. None: as many as the GPUs serve, or one for every
        `CORES_PER_RUN` cores of a device.
    workers
        As in `run`.
    fresh
        Repeat what was done before this runner.
    made
        Names of the runs that this runner has made.
    damaged
        Why finished runs are left out, by name: files of theirs are damaged.
    """

    work: Path
    device: str = "cpu"
    jobs: int | None = None
    workers: int = READERS
    fresh: bool = False
    made: set[str] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)

    def run(self, configs: Iterable[Config]) -> None:
        """Do every run that is not done.

        A run that fails does not keep the others from being made.

        Parameters
        ----------
        configs
            What to run; one that is there twice is run once.

        Raises
        ------
        FeatregError
            If runs failed; they are named.
        UsageError
            If another run lies in the folder of one of these, or two would share one.
        """
        every: dict[str, Config] = {}
        for config in configs:
            if (first := every.setdefault(config.run_name, config)) != config:
                raise UsageError(
                    f"{config.run_name}: two runs would have this name, with "
                    f"{_differences(first, config)}; a name holds six digits, so give values that "
                    "are further apart"
                )
        todo = self._todo(every.values())
        done = len(every) - len(todo) - len(every.keys() & self.damaged.keys())
        say(f"{len(every)} runs: {done} done already, {len(todo)} to do")
        if not todo:
            return
        places = environments(self.device, todo[0].devices, self.jobs)
        # The process that trains on several devices is started again for each of them.
        alone = len(places) == 1 and todo[0].devices == 1
        make = _here if alone else _side_by_side
        failures = make(todo, self.work, self.device, places, self.workers)
        self.made.update(every.keys() - failures.keys())
        if failures:
            lines = [f"  {name}: {reason}" for name, reason in sorted(failures.items())]
            without = " without --fresh" if self.fresh else ""
            raise FeatregError(
                f"{len(failures)} of {len(every)} runs failed; the same command{without} goes on "
                "from the others, which are done:\n" + "\n".join(lines)
            )

    def _todo(self, configs: Iterable[Config]) -> list[Config]:
        data: dict[Path, str] = {}
        found = []
        for config in configs:
            if config.run_name in self.damaged:
                continue
            aligned = DatasetDir(self.work / config.dataset).aligned(config.aligned)
            if aligned not in data:
                data[aligned] = AlignedSet(aligned).fingerprint
            folder = run_dir(self.work, config)
            if self.fresh and config.run_name not in self.made:
                folder.clear()
            try:
                if folder.todo(config, data[aligned], otherwise=_OTHERWISE):
                    found.append(config)
            except UsageError:
                raise
            except FeatregError as error:
                self.damaged[config.run_name] = str(error)
                warn(f"{config.run_name} is left out: {error}")
        return found

    def groups(self, seeded: Iterable[Sequence[Config]]) -> list[Group]:
        """The finished runs of configurations which differ in their seeds alone.

        Damaged runs are left out, and groups in which no other run is.
        """
        found = []
        for configs in seeded:
            sound = [each for each in configs if each.run_name not in self.damaged]
            if sound:
                results = [Result(run_dir(self.work, each)) for each in sound]
                found.append(Group(configs[0].title, results))
        return found


def _differences(one: Config, other: Config) -> str:
    """What two configurations have otherwise: ``alpha 0.3 and 0.3000001``."""
    first, second = (each.pop("recipe") | each for each in (one.to_json(), other.to_json()))
    found = [f"{key} {first[key]} and {second[key]}" for key in first if first[key] != second[key]]
    return ", ".join(found)


def environments(device: str, devices: int, jobs: int | None) -> list[Mapping[str, str]]:
    """The environment of each process: its GPUs and its share of the cores.

    Parameters
    ----------
    device
        ``cpu`` or ``cuda``.
    devices
        That a run trains on together, each with a process of its own.
    jobs
        Processes; where there are fewer GPUs, several share one. None: see `Runner`.

    Raises
    ------
    UsageError
        If a run asks for more GPUs than there are.
    """
    if device == "cpu":
        jobs = jobs or max(1, cores() // (CORES_PER_RUN * devices))
        return [{"OMP_NUM_THREADS": str(max(1, cores() // (jobs * devices)))}] * jobs
    gpus = _gpus()
    require_gpus(devices, len(gpus))
    groups = [
        ",".join(gpus[start : start + devices])
        for start in range(0, len(gpus) - devices + 1, devices)
    ]
    jobs = jobs or len(groups)
    shared = {"OMP_NUM_THREADS": str(max(1, cores() // (jobs * devices)))}
    chosen = itertools.islice(itertools.cycle(groups), jobs)
    return [{**shared, "CUDA_VISIBLE_DEVICES": group} for group in chosen]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _gpus() -> list[str]:
    """The GPUs that this process may use, by their names in CUDA_VISIBLE_DEVICES."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        return named.split(",")
    return [str(number) for number in range(torch.cuda.device_count())]


def _here(
    configs: Sequence[Config],
    work: Path,
    device: str,
    places: Sequence[Mapping[str, str]],
    workers: int,
) -> dict[str, str]:
    """One after another, in this process; why runs failed, by name."""
    from ..training.run import run

    failures = {}
    for number, config in enumerate(configs, start=1):
        say(f"run {number} of {len(configs)}")
        try:
            run(config, work, device=device, workers=workers, command=typed())
        except FeatregError as error:
            failures[config.run_name] = str(error)
        except Exception as error:  # torch's, or a bug: the others are made all the same
            failures[config.run_name] = _unexpected(error, run_dir(work, config).path / LOG)
    return failures


def _unexpected(error: Exception, log: Path) -> str:
    """The error in one line; where it came from is in the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(traceback.format_exception(error)))
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({log})"


def _side_by_side(
    configs: Sequence[Config],
    work: Path,
    device: str,
    places: Sequence[Mapping[str, str]],
    workers: int,
) -> dict[str, str]:
    """A process for each run, one at a time in each place; why runs failed, by name."""
    say(f"{len(places)} at a time; what they say is in {work / 'runs'}/RUN/{LOG}")
    free: SimpleQueue[Mapping[str, str]] = SimpleQueue()
    for place in places:
        free.put(place)
    running: set[subprocess.Popen[bytes]] = set()
    failures: dict[str, str] = {}

    def one(config: Config) -> tuple[str, str | None]:
        place = free.get()
        try:
            return config.run_name, _process(config, work, device, place, workers, running)
        finally:
            free.put(place)

    with ThreadPoolExecutor(len(places)) as pool, progress("runs", len(configs)) as advance:
        waiting = [pool.submit(one, config) for config in configs]
        try:
            for future in as_completed(waiting):
                name, reason = future.result()
                advance(note=name)
                if reason is not None:
                    failures[name] = reason
        except BaseException:  # interrupted, most likely: no process outlives this one
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()
            raise
    return failures


def _command(config: Config, device: str, workers: int) -> list[str]:
    """``train run-config``, whose argument holds everything that the run needs, as JSON."""
    asked = {"config": config.to_json(), "device": device, "workers": workers, "command": typed()}
    return [sys.executable, "-m", "featreg.train", "run-config", json.dumps(asked)]


def _process(
    config: Config,
    work: Path,
    device: str,
    place: Mapping[str, str],
    workers: int,
    running: set[subprocess.Popen[bytes]],
) -> str | None:
    """One run in a process of its own; None, or why it failed."""
    folder = run_dir(work, config)
    log = folder.path / LOG
    try:
        with folder.held():  # not the log of a run that another process trains
            output = log.open("wb")
    except FeatregError as error:
        return str(error)
    with output:
        process = subprocess.Popen(
            _command(config, device, workers),
            env={**os.environ, **place, "FEATREG_WORK": str(work)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        running.add(process)
        try:
            status = process.wait()
        finally:
            running.discard(process)
    if status == 0:
        return None
    said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    return f"{said[-1].removeprefix('error: ')} (exit status {status}; {log})"
