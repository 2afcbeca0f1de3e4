"""One run: train, keep the best epoch by validation, test it, and write the run's folder."""

from __future__ import annotations

import dataclasses
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from safetensors.torch import save

from featreg.datasets.console import say
from featreg.datasets.shards import atomic_path
from featreg.datasets.workdir import DatasetDir

from .bootstrap import bootstrap
from .build import build_fabric, build_objective, crop_samples
from .checkpoint import Progress
from .crops import Chunks, Crops, Cutter, EpochOrder, Scaling, crop_loader
from .data import AlignedSet, ClipReader, Clips
from .fit import Fit
from .inference import Predictions, predict
from .metrics import Evaluation, evaluate
from .params import count
from .presets import Config
from .runs import RunDir
from .versions import machine, versions


def run(
    config: Config,
    work: Path,
    name: str | None = None,
    fresh: bool = False,
    device: str = "cpu",
    workers: int | None = None,
) -> RunDir:
    """Do what `config` says, or what is left to do of it.

    Parameters
    ----------
    config
        All that decides the numbers.
    work
        The working folder.
    name
        Of the run's folder; made from `config` if not given.
    fresh
        Start anew, whatever is there.
    device
        ``cpu`` or ``cuda``.
    workers
        Processes that read; None: none for data that fit into memory, else one a core
        up to 8.

    Returns
    -------
    The folder of the finished run.

    Raises
    ------
    FeatregError
        If the loss is not finite, or the data do not fit the model.
    UsageError
        If another run lies in the folder.
    """
    aligned = AlignedSet(DatasetDir(work / config.dataset).aligned(config.aligned))
    folder = RunDir(work / "runs" / (name or config.run_name))
    _deterministic()
    for part in ("fabric", "pytorch"):  # they would repeat the precision
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)
    fabric = build_fabric(config, device)
    fabric.launch()
    todo = fabric.is_global_zero and folder.claim(config, aligned.fingerprint, fresh)
    if not fabric.is_global_zero:
        logging.getLogger("featreg").setLevel(logging.WARNING)
    if not fabric.broadcast(todo):
        say(f"{folder.name}: done already (--fresh repeats it)")
        return folder
    say(f"{folder.path}: {config.title}")
    _Run(config, aligned, folder, fabric, workers).go()
    return folder


def _deterministic() -> None:
    # cuBLAS reads the variable when it starts; the value is the one it documents.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


class _Run:
    """What the parts of one run share."""

    def __init__(
        self,
        config: Config,
        aligned: AlignedSet,
        folder: RunDir,
        fabric: Fabric,
        workers: int | None,
    ) -> None:
        self.config, self.aligned, self.folder, self.fabric = config, aligned, folder, fabric
        self.train = aligned.split("train").fraction(config.fraction, config.seed)
        self.valid, self.test = aligned.split("valid"), aligned.split("test")
        self.objective = build_objective(config, aligned)
        reader = ClipReader(self.train, config.features, aligned.dim(config.features))
        if workers is None:
            workers = 0 if reader.in_memory else min(8, os.cpu_count() or 1)
        self.workers = workers
        self.scaling = None
        if config.recipe.standardize and config.features:
            self.scaling = Scaling.of(reader)
            reader.close()

    def go(self) -> None:
        """Train, test, write."""
        if self.fabric.is_global_zero:
            self._write_config()
        progress = self._fit()
        predictions = self._predict(self._chunks(self.test))
        if self.fabric.is_global_zero:
            self._write_results(progress, predictions)
        self.fabric.barrier()

    def _cutter(self, clips: Clips, features: tuple[str, ...]) -> Cutter:
        samples = crop_samples(self.config.recipe, self.aligned.header.audio_rate)
        return Cutter(self.aligned, clips, features, samples, self.scaling)

    def _fit(self) -> Progress:
        config, fabric = self.config, self.fabric
        order = EpochOrder(
            len(self.train),
            config.recipe.batch_size,
            config.seed,
            fabric.global_rank,
            fabric.world_size,
        )
        crops = Crops(self._cutter(self.train, config.features), config.seed)
        loader = crop_loader(crops, order, self.workers)
        chunks = self._chunks(self.valid)
        return Fit(
            fabric,
            config,
            fabric.setup_module(self.objective),
            fabric.setup_dataloaders(loader, use_distributed_sampler=False),
            order,
            lambda: self._evaluate(self.valid, self._predict(chunks)).values,
            self.train.clip_id,
            self.folder.path,
        ).run()

    def _chunks(self, clips: Clips) -> Chunks:
        features = self.config.features if self.objective.tagger.needs_features else ()
        return Chunks(self._cutter(clips, features), self.config.recipe.chunks)

    def _predict(self, chunks: Chunks) -> Predictions:
        recipe, objective = self.config.recipe, self.objective
        together = max(1, recipe.batch_size * 2 // recipe.chunks)
        return predict(
            self.fabric, objective.tagger, chunks, objective.task, together, self.workers
        )

    def _evaluate(self, clips: Clips, predictions: Predictions) -> Evaluation:
        header = self.aligned.header
        return evaluate(
            clips.label,
            predictions.probability,
            clips.label_mask,
            header.classes,
            self.objective.task,
        )

    def _write_config(self) -> None:
        if (self.folder.path / "config.json").is_file():  # a run that goes on
            return
        header = self.aligned.header
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        self.folder.write_json(
            "config.json",
            {
                "config": self.config.to_json(),
                "fingerprint": self.config.fingerprint(self.aligned.fingerprint),
                "data": {
                    "fingerprint": self.aligned.fingerprint,
                    "folder": str(self.aligned.folder),
                    "clips": {name: len(clips) for name, clips in splits.items()},
                    **dataclasses.asdict(header),
                },
                "parameters": {
                    "training": count(self.objective),
                    "inference": count(self.objective.tagger),
                },
                "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "versions": versions(),
                "machine": machine(self.fabric.device.type),
            },
        )

    def _write_results(self, progress: Progress, predictions: Predictions) -> None:
        clips, classes, path = self.test, self.aligned.header.classes, self.folder.path
        tagger = self.objective.tagger.state_dict()
        with atomic_path(path / "model.safetensors") as temporary:
            weights = {name: values.contiguous().cpu() for name, values in tagger.items()}
            temporary.write_bytes(save(weights))  # save_file would let nobody else read it
        if self.scaling is not None:
            with _npz(path / "scaling.npz") as file:
                np.savez(file, mean=self.scaling.mean, std=self.scaling.std)
        table = pd.DataFrame(predictions.probability, columns=list(classes), index=clips.clip_id)
        with atomic_path(path / "predictions.csv") as temporary:
            table.to_csv(temporary, index_label="clip_id", float_format="%.6f")
        with _npz(path / "embeddings.npz") as file:
            np.savez(
                file,
                clip_id=clips.clip_id,
                embedding=predictions.embedding,
                label=clips.label,
                label_mask=clips.label_mask,
            )
        test = self._evaluate(clips, predictions)
        intervals = bootstrap(
            clips.label, predictions.probability, clips.label_mask, self.objective.task
        )
        best = progress.history[progress.best_epoch - 1]
        self.folder.write_json(
            "report.json",
            {
                "best_epoch": progress.best_epoch,
                "valid": {name[6:]: best[name] for name in best if name.startswith("valid_")},
                "test": dict(test.values),
                "intervals": {name: list(ends) for name, ends in intervals.items()},
                "classes": [dataclasses.asdict(each) for each in test.classes],
                "undefined": dict(test.undefined),
                "seconds": sum(row["seconds"] for row in progress.history),
            },
        )
        (path / "state.pt").unlink(missing_ok=True)


@contextmanager
def _npz(path: Path) -> Iterator[BinaryIO]:
    """A file to save arrays to; given a mere name, numpy would add a suffix to it."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file
