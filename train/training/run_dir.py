"""What lies in a run's folder, and whether the run is done.

::

    WORK/runs/RUN/config.json        every option, seed, versions, data fingerprint
    WORK/runs/RUN/metrics.csv        one row per epoch
    WORK/runs/RUN/tensorboard/       the same curves, with --tensorboard
    WORK/runs/RUN/state.pt           training state, while it trains
    WORK/runs/RUN/model.safetensors  the best epoch's model, see `model_file.py`
    WORK/runs/RUN/scaling.npz        mean and std of the features, with --standardize
    WORK/runs/RUN/predictions.csv    test split: clip_id, probability of each class
    WORK/runs/RUN/embeddings.npz     test split: clip_id, embedding, label, label_mask
    WORK/runs/RUN/report.json        test metrics; written last: with it, the run is done
    WORK/runs/RUN/log.txt            what it said, if it was one of several at a time
    WORK/runs/RUN/.lock              locked by the process that trains it

Each file but the last two and ``tensorboard/`` has a checksum, see `run_files`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.locks import LOCK, exclusive
from featreg.datasets.shards.aligned import AlignedHeader
from featreg.datasets.shards.hdf5 import remove_temporaries
from featreg.datasets.shards.workdir import choose

from ..config.presets import Config
from .run_files import damaged, read_json, read_verified, write_json

LOG = "log.txt"
"""What a run that had a process of its own said, in its folder."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """One run's folder."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def finished(self) -> bool:
        """Whether the run was trained and tested to its end."""
        return (self.path / "report.json").is_file()

    def read_json(self, name: str) -> dict[str, Any]:
        """``config.json`` or ``report.json``.

        Raises
        ------
        FeatregError
            If there is none, it is damaged, or another version of featreg wrote it.
        """
        path = self.path / name
        if not path.is_file():
            raise FeatregError(f"{path}: no such file; is {self.name} the name of a finished run?")
        return read_json(path)

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write ``config.json``, or ``report.json`` with the checksums of all other files."""
        write_json(self.path / name, values)

    def read_output(self, name: str) -> bytes:
        """The contents of one of `OUTPUTS` of a finished run.

        Raises
        ------
        FeatregError
            If it, or the report that holds its checksum, is missing or damaged.
        """
        return read_verified(self.path / name, self.read_json("report.json")["files"].get(name))

    def verify(self) -> None:
        """Check every file of a finished run against its checksum.

        Raises
        ------
        FeatregError
            At the first file that is missing, damaged, or of another version of featreg.
        """
        self.config()
        for name, sha256 in self.read_json("report.json")["files"].items():
            read_verified(self.path / name, sha256)

    def config(self) -> Config:
        """The run's configuration.

        Raises
        ------
        FeatregError
            If ``config.json`` is damaged, or holds other settings than this version knows.
        """
        values = self.read_json("config.json")["config"]
        try:
            return Config.from_json(values)
        except (KeyError, TypeError) as error:
            raise damaged(self.path / "config.json", f"unknown settings ({error})") from None

    def clear(self) -> None:
        """Forget the run that is there, if any.

        Raises
        ------
        FeatregError
            If another process trains it.
        UsageError
            If the folder holds something that is no run.
        """
        if not self.path.exists():
            return
        inside = sorted({path.name for path in self.path.glob("[!.]*")} - {LOG})
        if inside and "config.json" not in inside:
            raise UsageError(
                f"{self.path}: --fresh removes a run, but this is none: no config.json, but "
                f"{', '.join(inside[:3])}; move it away yourself"
            )
        with self.held():
            # Were this killed in between: first what would pass for done, or be gone on with,
            # last what makes it a run.
            turn = {"report.json": -2, "state.pt": -1, "config.json": 1}
            for path in sorted(self.path.iterdir(), key=lambda path: turn.get(path.name, 0)):
                if path.name != LOCK:
                    _remove(path)

    @contextmanager
    def claim(
        self, config: Config, data: str, header: AlignedHeader | None = None
    ) -> Iterator[bool]:
        """Hold the folder as this run's own; whether there is anything left to do.

        Parameters
        ----------
        config, data, header
            As in `todo`.

        Raises
        ------
        FeatregError
            If another process trains it.
        UsageError
            If another run lies in the folder.
        """
        with self.held():
            yield self.todo(config, data, header)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder against other processes, as long as the block lasts.

        What a killed one left half written is removed.

        Raises
        ------
        FeatregError
            If another process holds it.
        """
        with exclusive(self.path, "another process trains this run; wait for it"):
            remove_temporaries(self.path)
            yield

    def todo(
        self,
        config: Config,
        data: str,
        header: AlignedHeader | None = None,
        otherwise: str = "choose another name with --run-name",
    ) -> bool:
        """Whether there is anything left to do.

        Parameters
        ----------
        config
            What is to be run.
        data
            Fingerprint of the shards.
        header
            Of the shards: says what changed if they did.
        otherwise
            What to do, but for ``--fresh``, where another run lies in the folder.

        Raises
        ------
        FeatregError
            If a file of the run is damaged.
        UsageError
            If another run lies in the folder.
        """
        if not (self.path / "config.json").is_file():
            return True
        there = self.read_json("config.json")
        if there["fingerprint"] != config.fingerprint(data):
            raise UsageError(
                f"{self.path} holds a run with another "
                f"{_differences(there, config.to_json(), data, header)}; "
                f"{otherwise}, or replace it with --fresh"
            )
        if self.finished:
            self.verify()
        return not self.finished


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def run_dir(work: Path, config: Config, name: str | None = None) -> RunDir:
    """The folder in which a run is made.

    Parameters
    ----------
    work
        The working folder.
    config
        Names the run if `name` is None; where a run on another aligned set bears its name
        already, the name of its own stands at the end.
    name
        What the user calls it.

    Raises
    ------
    UsageError
        If `name` leads out of WORK/runs, or deeper into it.
    """
    runs = work / "runs"
    if name is not None:
        if name != Path(name).name or name in ("", ".."):
            raise UsageError(
                f"--run-name {name}: expected the name of a folder in {runs}, not a path"
            )
        return RunDir(runs / name)
    plain, apart = (
        RunDir(runs / each) for each in (config.run_name, f"{config.run_name}-{config.aligned}")
    )
    if (apart.path / "config.json").is_file():
        return apart
    if (plain.path / "config.json").is_file():
        try:
            there = plain.config().aligned
        except FeatregError:
            return plain  # whoever reads it says why; --fresh replaces it
        return plain if there == config.aligned else apart
    return plain


def _differences(
    there: Mapping[str, Any], config: Mapping[str, Any], data: str, header: AlignedHeader | None
) -> str:
    found = {**there["config"], **there["config"]["recipe"]}
    wanted = {**config, **config["recipe"]}
    different = [
        f"{key} ({found.get(key)}, not {wanted[key]})"
        for key in wanted
        if key != "recipe" and found.get(key) != wanted[key]
    ]
    if there["data"]["fingerprint"] != data:
        about = {} if header is None else json.loads(json.dumps(dataclasses.asdict(header)))
        changed = [
            f"{key} ({there['data'][key]}, not {about[key]})"
            for key in ("classes", "task", "resolution_s", "mode", "audio_rate")
            if key in about and there["data"].get(key) != about[key]
        ]
        different += changed or ["data (the aligned shards have changed)"]
    return ", ".join(different)


def choose_run(work: Path, wanted: str | None, option: str = "--run") -> RunDir:
    """The finished run that is meant.

    Parameters
    ----------
    work
        The working folder.
    wanted
        A name in WORK/runs, or a folder; None for the only finished run.
    option
        Where it is given, for messages.

    Raises
    ------
    FeatregError
        If there is no finished run, or the one that is meant is not finished.
    UsageError
        If there is none of that name, or there are several to choose from.
    """
    if wanted is None:
        finished = [run.name for run in find_runs(work) if run.finished]
        empty = f"{work / 'runs'}: no finished run; run `train run` first"
        return RunDir(work / "runs" / choose("run", option, finished, None, empty))
    run = find_run(work, wanted)
    if not run.finished:
        raise FeatregError(f"{run.path}: not finished; `train run` goes on with it")
    return run


def find_run(work: Path, wanted: str) -> RunDir:
    """The run that is meant, finished or not.

    Parameters
    ----------
    work
        The working folder.
    wanted
        A name in WORK/runs, or a folder, however it is spelled: ``.`` has a name of its own.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    for path in (work / "runs" / wanted, Path(wanted)):
        if (path / "config.json").is_file():
            return RunDir(Path(os.path.abspath(path)))  # and not what a link leads to
    there = ", ".join(run.name for run in find_runs(work)) or "none"
    raise UsageError(f"{wanted}: no such run; there is {there}")


def find_runs(work: Path) -> list[RunDir]:
    """All runs in the working folder, by name; of a damaged one either file may be gone."""
    files = [*work.glob("runs/*/config.json"), *work.glob("runs/*/report.json")]
    return [RunDir(folder) for folder in sorted({path.parent for path in files})]
