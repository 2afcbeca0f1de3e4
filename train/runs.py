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
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featreg.datasets.aligned import AlignedHeader
from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.shards import atomic_path
from featreg.datasets.workdir import choose

from .presets import Config

FORMAT, VERSION = "featreg-run", 1


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
            If there is none, or it was written by another version.
        """
        path = self.path / name
        if not path.is_file():
            raise FeatregError(f"{path}: no such file; is {self.name} the name of a finished run?")
        values: dict[str, Any] = json.loads(path.read_text())
        if (values.get("format"), values.get("version")) != (FORMAT, VERSION):
            raise FeatregError(
                f"{path}: expected {FORMAT} version {VERSION}, found {values.get('format')} "
                f"version {values.get('version')}; read it with the featreg that wrote it"
            )
        return values

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write ``config.json`` or ``report.json``, atomically."""
        text = json.dumps({"format": FORMAT, "version": VERSION, **values}, indent=2)
        with atomic_path(self.path / name) as temporary:
            temporary.write_text(text + "\n")

    def config(self) -> Config:
        """The run's configuration."""
        return Config.from_json(self.read_json("config.json")["config"])

    def claim(
        self, config: Config, data: str, fresh: bool, header: AlignedHeader | None = None
    ) -> bool:
        """Make the folder this run's own; whether there is anything left to do.

        Parameters
        ----------
        config
            What is to be run.
        data
            Fingerprint of the shards.
        fresh
            Forget what is there.
        header
            Of the shards: says what changed if they did.

        Raises
        ------
        UsageError
            If another run lies in the folder.
        """
        if fresh and self.path.exists():
            # First what would be gone on with, or pass for done, were this killed in between.
            for name in ("report.json", "state.pt"):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path)
        if not (self.path / "config.json").is_file():
            return True
        for half in self.path.glob(".*.tmp"):  # of a process killed while it wrote
            half.unlink(missing_ok=True)
        there = self.read_json("config.json")
        if there["fingerprint"] != config.fingerprint(data):
            raise UsageError(
                f"{self.path} holds a run with another "
                f"{_differences(there, config.to_json(), data, header)}; "
                "choose another name with --run-name, or replace it with --fresh"
            )
        return not self.finished


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


def choose_run(work: Path, wanted: str | None) -> RunDir:
    """The finished run that is meant.

    Parameters
    ----------
    work
        The working folder.
    wanted
        A name in WORK/runs, or a folder; None for the only finished run.

    Raises
    ------
    FeatregError
        If there is no finished run, or the one that is meant is not finished.
    UsageError
        If there is none of that name, or there are several to choose from.
    """
    runs = find_runs(work)
    if wanted is None:
        finished = [run.name for run in runs if run.finished]
        empty = f"{work / 'runs'}: no finished run; run `train run` first"
        return RunDir(work / "runs" / choose("run", "--run", finished, None, empty))
    for path in (work / "runs" / wanted, Path(wanted)):
        if (path / "config.json").is_file():
            if not RunDir(path).finished:
                raise FeatregError(f"{path}: not finished; `train run` goes on with it")
            return RunDir(path)
    there = ", ".join(run.name for run in runs) or "none"
    raise UsageError(f"{wanted}: no such run; there is {there}")


def find_runs(work: Path) -> list[RunDir]:
    """All runs in the working folder, by name."""
    return [RunDir(path.parent) for path in sorted(work.glob("runs/*/config.json"))]
