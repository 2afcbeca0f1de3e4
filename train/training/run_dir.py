"""The folder of a run: its files, its lock, and whether the run is finished.

::

    WORK/runs/RUN/config.json        every option, seed, versions, data fingerprint
    WORK/runs/RUN/metrics.csv        one row per epoch
    WORK/runs/RUN/tensorboard/       the same curves, with --tensorboard
    WORK/runs/RUN/state.pt           training state of an unfinished run
    WORK/runs/RUN/model.safetensors  the best epoch's model, see `model_file.py`
    WORK/runs/RUN/encoder.safetensors  the best epoch's encoder, instead, of a pretraining
    WORK/runs/RUN/scaling.npz        mean and std of the features, with --feature-norm
    WORK/runs/RUN/predictions.csv    test split: clip_id, probability of each class
    WORK/runs/RUN/embeddings.npz     test split: clip_id, embedding, label, label_mask
    WORK/runs/RUN/report.json        test metrics; written last, which marks the run as finished
    WORK/runs/RUN/log.txt            output of a run in a process of its own
    WORK/runs/RUN/.lock              locked by the process that trains the run

All files except the last two and ``tensorboard/`` have a checksum, see `run_files`.
"""

from __future__ import annotations

import dataclasses
import json
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

from ..config.config import Config
from .run_files import damaged, read_json, read_verified, write_json

LOG = "log.txt"
"""Name of the file with the output of a run in a process of its own."""

ENCODER = "encoder.safetensors"
"""Name of the file with the encoder that a pretraining trained."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """The folder of one run."""

    path: Path

    @property
    def name(self) -> str:
        """Return the name of the run."""
        return self.path.name

    @property
    def finished(self) -> bool:
        """Return whether the run has been trained and tested."""
        return (self.path / "report.json").is_file()

    @property
    def pretraining(self) -> bool:
        """Return whether this is a finished pretraining, which has an encoder and no classifier."""
        return (self.path / ENCODER).is_file()

    def read_json(self, name: str) -> dict[str, Any]:
        """Read ``config.json`` or ``report.json``.

        Raises
        ------
        FeatregError
            If the file is missing, damaged, or was written by another version of featreg.
        """
        path = self.path / name
        if not path.is_file():
            raise FeatregError(f"{path}: not found; {self.name} is not a finished run")
        return read_json(path)

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write ``config.json``, or ``report.json`` with the checksums of all other files."""
        write_json(self.path / name, values)

    def read_output(self, name: str) -> bytes:
        """Read one of `OUTPUTS` of a finished run.

        Raises
        ------
        FeatregError
            If the file, or the report with its checksum, is missing or damaged.
        """
        return read_verified(self.path / name, self.read_json("report.json")["files"].get(name))

    def verify(self) -> None:
        """Check every file of a finished run against its checksum.

        Raises
        ------
        FeatregError
            At the first file that is missing, damaged, or was written by another version.
        """
        self.config()
        for name, sha256 in self.read_json("report.json")["files"].items():
            read_verified(self.path / name, sha256)

    def config(self) -> Config:
        """Return the configuration of the run.

        Raises
        ------
        FeatregError
            If ``config.json`` is damaged, or contains settings unknown to this version.
        """
        values = self.read_json("config.json")["config"]
        try:
            return Config.from_json(values)
        except (KeyError, TypeError) as error:
            raise damaged(self.path / "config.json", f"unknown settings ({error})") from None

    def require_classifier(self) -> None:
        """Check that the run is not a pretraining.

        Raises
        ------
        UsageError
            If it is one.
        """
        if self.pretraining:
            raise UsageError(
                f"{self.name}: a pretraining has an encoder and no classifier; train one with "
                f"`train run --init {self.name}`"
            )

    def clear(self) -> None:
        """Delete the files of an existing run, if any.

        Raises
        ------
        FeatregError
            If another process is training the run.
        UsageError
            If the folder contains files that are not a run.
        """
        if not self.path.exists():
            return
        inside = sorted({path.name for path in self.path.glob("[!.]*")} - {LOG})
        if inside and "config.json" not in inside:
            raise UsageError(
                f"{self.path}: --fresh deletes runs only; found no config.json, but "
                f"{', '.join(inside[:3])}; move these files yourself"
            )
        with self.held():
            # If this process is killed in between, what is left must not be mistaken for a
            # finished or resumable run, but still be recognized as a run.
            order = {"report.json": -2, "state.pt": -1, "config.json": 1}
            for path in sorted(self.path.iterdir(), key=lambda path: order.get(path.name, 0)):
                if path.name != LOCK:
                    _remove(path)

    @contextmanager
    def claim(
        self, config: Config, data: str, header: AlignedHeader | None = None
    ) -> Iterator[bool]:
        """Lock the folder within the block; yield whether the run is unfinished.

        Parameters
        ----------
        config, data, header
            As in `todo`.

        Raises
        ------
        FeatregError
            If another process is training the run.
        UsageError
            If the folder contains another run.
        """
        with self.held():
            yield self.todo(config, data, header)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder within the block, and remove temporary files of killed processes.

        Raises
        ------
        FeatregError
            If another process holds the lock.
        """
        with exclusive(self.path, "another process is training this run; wait until it ends"):
            remove_temporaries(self.path)
            yield

    def todo(
        self,
        config: Config,
        data: str,
        header: AlignedHeader | None = None,
        otherwise: str = "choose another name with --run-name",
    ) -> bool:
        """Return whether the run is unfinished.

        Parameters
        ----------
        config
            Configuration of the run.
        data
            Fingerprint of the shards.
        header
            Header of the shards, to describe changes in the error message.
        otherwise
            Advice other than ``--fresh`` if the folder contains another run.

        Raises
        ------
        FeatregError
            If a file of the run is damaged.
        UsageError
            If the folder contains another run.
        """
        if not (self.path / "config.json").is_file():
            return True
        stored = self.read_json("config.json")
        if stored["fingerprint"] != config.fingerprint(data):
            raise UsageError(
                f"{self.path} contains a run with different settings: "
                f"{_differences(stored, config.to_json(), data, header)}; "
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
    """Return the folder of a run.

    Parameters
    ----------
    work
        The working folder.
    config
        Configuration that determines the folder's name if `name` is None. The name of the
        aligned set is appended if a run on another aligned set already has this name.
    name
        Name given by the user.

    Raises
    ------
    UsageError
        If `name` is not the name of a folder in WORK/runs.
    """
    runs = work / "runs"
    if name is not None:
        if name != Path(name).name or name in ("", ".."):
            raise UsageError(
                f"--run-name {name}: expected the name of a folder in {runs}, not a path"
            )
        return RunDir(runs / name)
    short, long = (
        RunDir(runs / each) for each in (config.run_name, f"{config.run_name}-{config.aligned}")
    )
    if (long.path / "config.json").is_file():
        return long
    if (short.path / "config.json").is_file():
        try:
            aligned = short.config().aligned
        except FeatregError:
            return short  # the error is raised again when the run is read; --fresh replaces it
        return short if aligned == config.aligned else long
    return short


def _differences(
    stored: Mapping[str, Any], config: Mapping[str, Any], data: str, header: AlignedHeader | None
) -> str:
    found = {**stored["config"], **stored["config"]["recipe"]}
    wanted = {**config, **config["recipe"]}
    different = [
        f"{key} ({found.get(key, 'off')}, not {wanted.get(key, 'off')})"
        for key in dict.fromkeys([*wanted, *found])
        if key != "recipe" and found.get(key) != wanted.get(key)
    ]
    if stored["data"]["fingerprint"] != data:
        current = {} if header is None else json.loads(json.dumps(dataclasses.asdict(header)))
        changed = [
            f"{key} ({stored['data'][key]}, not {current[key]})"
            for key in ("classes", "task", "resolution_s", "mode", "audio_rate")
            if key in current and stored["data"].get(key) != current[key]
        ]
        different += changed or ["data (the aligned shards have changed)"]
    return ", ".join(different)
