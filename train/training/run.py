"""One run: train, keep the best epoch by validation, test it, and write the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from lightning.fabric import Fabric

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.console import say
from featreg.datasets.shards.workdir import DatasetDir

from ..config.options import READERS
from ..config.presets import Config, Recipe
from ..data.aligned_set import AlignedSet, Clips
from ..data.clip_reader import ClipReader
from ..data.crops import Chunks, Crops, Cutter, EpochOrder, Scaling, crop_loader
from ..deploy.model_file import Card, write_model
from ..evaluation.metrics import evaluate
from ..evaluation.predict import Predictions, clips_together, predict
from .build import build_fabric, build_objective, crop_samples
from .checkpoint import Progress
from .ddp import end_with_parent, ended_together
from .deterministic import deterministic, warnings_only
from .fit import Fit
from .memory import enough_memory
from .metrics_log import require_tensorboard
from .run_dir import RunDir, run_dir
from .run_outputs import about, report, write_predictions, write_scaling


def run(
    config: Config,
    work: Path,
    name: str | None = None,
    fresh: bool = False,
    device: str = "cpu",
    workers: int = READERS,
    save_every: float = 60.0,
    tensorboard: bool = False,
    command: str = "",
) -> RunDir:
    """Do what `config` says, or what is left to do of it.

    Settings of the process that the run needs (torch's deterministic mode, log levels) are
    put back when it ends.

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
        Threads that read ahead; 0: none.
    save_every
        Seconds of training after which the state is saved, beside each epoch's end.
    tensorboard
        Whether to log for TensorBoard beside ``metrics.csv``.
    command
        The command line that asks for this run; kept in ``config.json``.

    Returns
    -------
    The folder of the finished run.

    Raises
    ------
    FeatregError
        If the loss is not finite, the data do not fit the model, memory is too small, a
        file of the run is damaged, or another process trains this run.
    UsageError
        If `name` is no name of a folder, or what lies in the folder is another run or,
        with `fresh`, none.
    """
    if tensorboard:
        require_tensorboard()
    aligned = AlignedSet(DatasetDir(work / config.dataset).aligned(config.aligned))
    folder = run_dir(work, config, name)
    # Lightning's loggers would repeat the precision.
    with deterministic(), warnings_only("lightning.fabric", "lightning.pytorch"):
        fabric = build_fabric(config, device)
        # What does not fit is found here, before the processes of other devices start.
        with _memory(config.recipe, folder.name):
            it = _Run(config, aligned, folder, fabric, workers, save_every, tensorboard, command)
        # RANK, or Slurm's number of a task, would say nothing of a run on one device.
        if config.devices == 1 or fabric.local_rank == 0:
            if fresh:
                folder.clear()
            # Device 0 holds the folder for all.
            with folder.claim(config, aligned.fingerprint, aligned.header) as todo:
                it.on_all_devices(todo)
        else:
            end_with_parent()
            with warnings_only("featreg"):
                it.on_all_devices(todo=False)  # device 0 decides
    return folder


def _memory(recipe: Recipe, name: str) -> AbstractContextManager[None]:
    half = "" if recipe.precision == "bf16-mixed" else ", or --precision bf16-mixed"
    return enough_memory(
        name,
        f"take less than --batch-size {recipe.batch_size}, --crop {recipe.crop_s:g} or --width "
        f"{recipe.width}{half}",
    )


class _Run:
    """What the parts of one run share."""

    def __init__(
        self,
        config: Config,
        aligned: AlignedSet,
        folder: RunDir,
        fabric: Fabric,
        workers: int,
        save_every: float,
        tensorboard: bool,
        command: str,
    ) -> None:
        self.config, self.aligned, self.folder, self.fabric = config, aligned, folder, fabric
        self.workers, self.save_every, self.tensorboard = workers, save_every, tensorboard
        self.command = command
        self.train = aligned.split("train").fraction(config.fraction, config.seed)
        self.valid, self.test = aligned.split("valid"), aligned.split("test")
        self.scaling: Scaling | None = None
        self.objective = build_objective(config, aligned)
        self._order(0, config.devices)
        self._cutter(self.train, config.features)
        for name, clips in (("valid", self.valid), ("test", self.test)):
            self._require_clips(name, clips)
            self._require_metrics(name, clips)

    def on_all_devices(self, todo: bool) -> None:
        """Start the processes of the other devices, and do with them what there is to do.

        Parameters
        ----------
        todo
            Whether there is anything; counts on the first device only.
        """
        self.fabric.launch()
        with ended_together(self.fabric):
            if not self.fabric.broadcast(todo):
                say(f"{self.folder.name}: done already (--fresh repeats it)")
                return
            say(f"{self.folder.path}: {self.config.title}")
            with _memory(self.config.recipe, self.folder.name):
                self.go()

    def go(self) -> None:
        """Train, test, write."""
        path, header = self.folder.path, self.aligned.header
        if self.fabric.is_global_zero and not (path / "config.json").is_file():
            splits = {"train": self.train, "valid": self.valid, "test": self.test}
            device = self.fabric.device.type
            what = about(self.config, self.aligned, splits, self.objective, device, self.command)
            self.folder.write_json("config.json", what)
        self.scaling = self._scaling()
        progress = self._fit()
        found = self._predict(self._chunks(self.test))
        if self.fabric.is_global_zero:
            card = Card.of(self.folder.name, self.config, header)
            write_model(path / "model.safetensors", self.objective.tagger, card)
            if self.scaling is not None:
                write_scaling(path, self.scaling)
            write_predictions(path, self.test, found, header.classes)
            worth = report(progress, self.test, found, header.classes, self.aligned.task)
            self.folder.write_json("report.json", worth)
            (path / "state.pt").unlink(missing_ok=True)
        self.fabric.barrier()

    def _reader(self) -> ClipReader:
        return ClipReader(self.train, self.aligned.dims(self.config.features))

    def _scaling(self) -> Scaling | None:
        """Statistics of the training clips' features, where they are asked for."""
        if not self.config.recipe.standardize or not self.config.features:
            return None
        return Scaling.of(self._reader())

    def _cutter(self, clips: Clips, features: tuple[str, ...]) -> Cutter:
        samples = crop_samples(self.config.recipe, self.aligned.header.audio_rate)
        return Cutter(self.aligned, clips, features, samples, self.scaling)

    def _order(self, rank: int, world: int) -> EpochOrder:
        config = self.config
        return EpochOrder(len(self.train), config.recipe.batch_size, config.seed, rank, world)

    def _fit(self) -> Progress:
        config, fabric = self.config, self.fabric
        order = self._order(fabric.global_rank, fabric.world_size)
        crops = Crops(self._cutter(self.train, config.features), config.seed)
        loader = crop_loader(crops, order, self.workers)
        chunks = self._chunks(self.valid)

        def validate() -> Mapping[str, float]:
            return self._metrics(self.valid, self._predict(chunks))

        return Fit(
            fabric,
            config,
            fabric.setup_module(self.objective),
            loader,
            order,
            validate,
            self.train.clip_id,
            self.folder.path,
            self.save_every,
            self.tensorboard,
        ).run()

    def _chunks(self, clips: Clips) -> Chunks:
        features = self.config.features if self.objective.tagger.needs_features else ()
        return Chunks(self._cutter(clips, features), self.config.recipe.chunks)

    def _predict(self, chunks: Chunks) -> Predictions:
        together, objective = clips_together(self.config.recipe), self.objective
        return predict(
            self.fabric, objective.tagger, chunks, objective.task, together, self.workers
        )

    def _require_clips(self, split: str, clips: Clips) -> None:
        """See that every device has something to predict."""
        devices = self.config.devices
        if len(clips) < devices:
            raise UsageError(
                f"{self.aligned.folder}, split {split}: {len(clips)} clips, devices: {devices}; "
                "each predicts one at least; take fewer --devices"
            )

    def _require_metrics(self, split: str, clips: Clips) -> None:
        """See that every metric exists on a split, whatever will be predicted."""
        classes, task = self.aligned.header.classes, self.aligned.task
        nothing = np.zeros(clips.label.shape, np.float32)
        try:
            evaluate(clips.label, nothing, clips.label_mask, classes, task)
        except FeatregError as error:
            raise FeatregError(f"{self.aligned.folder}, split {split}: {error}") from None

    def _metrics(self, clips: Clips, found: Predictions) -> Mapping[str, float]:
        classes, task = self.aligned.header.classes, self.aligned.task
        return evaluate(clips.label, found.probability, clips.label_mask, classes, task).values
