"""Sweeps of many runs: existing runs are used, the others are trained, possibly in parallel."""

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
from typing import Any

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.console import counted, progress, say, warn

from ..config.config import Config
from ..config.options import READERS
from ..data.folds import open_set
from ..training.build import require_gpus
from ..training.run_dir import LOG, run_dir
from ..training.versions import command_line
from .compare import Group, Result

CORES_PER_RUN = 4
"""Number of CPU cores per run; a run gains little from more."""

_OTHERWISE = "use the options with which it was trained"


@dataclass(frozen=True, slots=True)
class Runner:
    """Trains runs in a working folder.

    Attributes
    ----------
    work
        The working folder.
    device
        ``cpu`` or ``cuda``.
    jobs
        Number of parallel runs, each in a process with its share of the cores and, if there
        are enough, with its own GPUs. With 1, runs are trained one after another, and in this
        process if they use one device. None for the number for which the GPUs suffice, or for
        `CORES_PER_RUN` cores per run and device.
    workers
        As in `run`.
    fresh
        Whether to repeat runs that were finished before.
    made
        Names of the runs that this runner has trained.
    damaged
        Name of a finished run with damaged files -> reason.
    """

    work: Path
    device: str = "cpu"
    jobs: int | None = None
    workers: int = READERS
    fresh: bool = False
    made: set[str] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)

    def run(self, configs: Iterable[Config]) -> None:
        """Train all runs that are not finished. If a run fails, the others are still trained.

        Parameters
        ----------
        configs
            Configurations of the runs; duplicates are ignored.

        Raises
        ------
        FeatregError
            If runs failed; the message names them.
        UsageError
            If the folder of a run contains another run, or two runs would share a folder.
        """
        every: dict[str, Config] = {}
        for config in configs:
            if (first := every.setdefault(config.run_name, config)) != config:
                raise UsageError(
                    f"{config.run_name}: two runs would have this name, with "
                    f"{_differences(first, config)}; names contain six digits, so use values that "
                    "differ more"
                )
        todo = self._todo(every.values())
        done = len(every) - len(todo) - len(every.keys() & self.damaged.keys())
        runs = counted(len(every), "run")
        say(f"{runs}: {done} finished, {len(todo)} to do")
        if not todo:
            return
        places = environments(self.device, todo[0].devices, self.jobs)
        # With several devices, the process of a run is started again for each device.
        serial = len(places) == 1 and todo[0].devices == 1
        failures = self._train_here(todo) if serial else self._train_in_parallel(todo, places)
        self.made.update(every.keys() - failures.keys())
        if failures:
            lines = [f"  {name}: {reason}" for name, reason in sorted(failures.items())]
            without = " without --fresh" if self.fresh else ""
            raise FeatregError(
                f"{len(failures)} of {runs} failed; run the same command{without} again to repeat "
                "these only:\n" + "\n".join(lines)
            )

    def _todo(self, configs: Iterable[Config]) -> list[Config]:
        data: dict[object, str] = {}
        found = []
        for config in configs:
            if config.run_name in self.damaged:
                continue
            made = config.fold and (config.fold.count, config.fold.seed)
            key = (config.dataset, config.aligned, made, config.group)
            if key not in data:
                data[key] = open_set(self.work, config).fingerprint
            folder = run_dir(self.work, config)
            if self.fresh and config.run_name not in self.made:
                folder.clear()
            try:
                if folder.todo(config, data[key], otherwise=_OTHERWISE):
                    found.append(config)
            except UsageError:
                raise
            except FeatregError as error:
                self.damaged[config.run_name] = str(error)
                warn(f"{config.run_name} is skipped: {error}")
        return found

    def groups(self, seeded: Iterable[Sequence[Config]]) -> list[Group]:
        """Return the finished runs, grouped by configurations that differ in their seeds only.

        Damaged runs, and groups without intact runs, are omitted.
        """
        found = []
        for configs in seeded:
            intact = [each for each in configs if each.run_name not in self.damaged]
            if intact:
                results = [Result(run_dir(self.work, each)) for each in intact]
                found.append(Group(configs[0].title, results))
        return found

    def _train_here(self, configs: Sequence[Config]) -> dict[str, str]:
        """Train runs one after another in this process; return the reasons of failures by name."""
        from ..training.run import run

        failures = {}
        for number, config in enumerate(configs, start=1):
            say(f"run {number} of {len(configs)}")
            try:
                run(config, self.work, **self._settings)
            except FeatregError as error:
                failures[config.run_name] = str(error)
            except Exception as error:  # of torch, or a bug; the other runs are still trained
                failures[config.run_name] = _unexpected(error, run_dir(self.work, config).path)
        return failures

    @property
    def _settings(self) -> dict[str, Any]:
        return {"device": self.device, "workers": self.workers, "command": command_line()}

    def _train_in_parallel(
        self, configs: Sequence[Config], places: Sequence[Mapping[str, str]]
    ) -> dict[str, str]:
        """Train each run in a process, one at a time per environment; return failures as above."""
        say(f"parallel runs: {len(places)}; their output is in {self.work / 'runs'}/RUN/{LOG}")
        free: SimpleQueue[Mapping[str, str]] = SimpleQueue()
        for place in places:
            free.put(place)
        running: set[subprocess.Popen[bytes]] = set()
        failures: dict[str, str] = {}

        def one(config: Config) -> tuple[str, str | None]:
            place = free.get()
            try:
                return config.run_name, self._process(config, place, running)
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
            except BaseException:  # such as KeyboardInterrupt: terminate all processes
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(running):
                    process.terminate()
                raise
        return failures

    def _process(
        self, config: Config, place: Mapping[str, str], running: set[subprocess.Popen[bytes]]
    ) -> str | None:
        """Train a run in a process of its own; return None, or the reason of its failure."""
        folder = run_dir(self.work, config)
        log = folder.path / LOG
        try:
            with folder.held():  # not the log of a run that another process is training
                output = log.open("wb")
        except FeatregError as error:
            return str(error)
        argument = json.dumps({"config": config.to_json(), **self._settings})
        with output:
            process = subprocess.Popen(
                [sys.executable, "-m", "featreg.train", "run-config", argument],
                env={**os.environ, **place, "FEATREG_WORK": str(self.work)},
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
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        return f"{lines[-1].removeprefix('error: ')} (exit status {status}; {log})"


def _differences(one: Config, other: Config) -> str:
    """Return the settings that differ, such as ``alpha 0.3 and 0.3000001``."""
    first, second = (each.pop("recipe") | each for each in (one.to_json(), other.to_json()))
    found = [
        f"{key} {first.get(key, 'off')} and {second.get(key, 'off')}"
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    ]
    return ", ".join(found)


def environments(device: str, devices: int, jobs: int | None) -> list[Mapping[str, str]]:
    """Return the environment variables of each parallel run: its GPUs and its share of the cores.

    Parameters
    ----------
    device
        ``cpu`` or ``cuda``.
    devices
        Number of devices per run.
    jobs
        Number of parallel runs, which share GPUs if there are not enough. None: see `Runner`.

    Raises
    ------
    UsageError
        If a run requests more GPUs than are available.
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
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _gpus() -> list[str]:
    """Return the GPUs that this process may use, as named in CUDA_VISIBLE_DEVICES."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return visible.split(",")
    return [str(number) for number in range(torch.cuda.device_count())]


def _unexpected(error: Exception, folder: Path) -> str:
    """Return an error as one line, and write its traceback to the log in the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOG).write_text("".join(traceback.format_exception(error)))
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({folder / LOG})"
