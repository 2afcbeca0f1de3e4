"""One run: training, selection of the best epoch on the validation split, and test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from torch import Tensor

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.console import say

from ..config.config import Config
from ..config.options import READERS
from ..config.presets import Recipe
from ..data.aligned_set import AlignedSet, Clips
from ..data.augment import Augmentation
from ..data.clip_reader import ClipReader
from ..data.crops import Chunks, Crops, Cutter, EpochOrder, Scaling, crop_loader
from ..data.folds import open_set
from ..data.unlabelled import TrainingClips, UnlabelledCycle, training_clips
from ..deploy.model_file import Card, write_model
from ..evaluation.metrics import evaluate
from ..evaluation.predict import Predictions, clips_per_batch, predict
from .build import build_fabric, build_objective, build_pretraining, crop_samples
from .checkpoint import Progress
from .ddp import exit_with_parent, kill_children_on_error
from .deterministic import deterministic, warnings_only
from .fit import Fit
from .initial_weights import initial_weights, write_encoder
from .memory import enough_memory
from .metrics_log import require_tensorboard
from .pretraining import mean_regularization
from .run_dir import RunDir, run_dir
from .run_outputs import (
    groups_of,
    pretraining_report,
    report,
    require_metrics,
    run_config,
    thresholds_of,
    write_predictions,
    write_scaling,
)


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
    """Train and test the model that `config` describes, or resume an interrupted run.

    Process-wide settings (torch's deterministic mode, log levels) are restored at the end. A
    finished run is not repeated.

    Parameters
    ----------
    config
        The configuration, of a training or a pretraining.
    work
        The working folder.
    name
        Name of the run folder; None for a name derived from `config`.
    fresh
        Whether to delete an existing run of this name and train again.
    device
        ``cpu`` or ``cuda``.
    workers
        Number of threads that read batches in advance; 0 disables them.
    save_every
        Maximum interval between checkpoints, in seconds; each epoch also ends with one.
    tensorboard
        Whether to write TensorBoard logs in addition to ``metrics.csv``.
    command
        The command line that started the run, to be stored in ``config.json``.

    Returns
    -------
    The folder of the finished run.

    Raises
    ------
    FeatregError
        If a loss is not finite, the data do not match the model, memory is insufficient, a
        file of the run is damaged, or another process is training this run.
    UsageError
        If `name` is not the name of a folder, or the folder contains another run or, with
        `fresh`, files that are not a run.
    """
    if config.probe:
        from .run_probe import run_probe

        return run_probe(config, work, name, fresh, command)
    if tensorboard:
        require_tensorboard()
    aligned = open_set(work, config)
    folder = run_dir(work, config, name)
    # Lightning's loggers print the precision, which is in config.json.
    with deterministic(), warnings_only("lightning.fabric", "lightning.pytorch"):
        fabric = build_fabric(config, device)
        # Invalid data and settings fail here, before the processes of other devices start.
        with _memory(config.recipe, folder.name):
            weights = initial_weights(config, work, aligned.header.audio_rate)
            active = _Run(
                config, aligned, folder, fabric, workers, save_every, tensorboard, command, weights
            )
        # On one device, RANK or Slurm's task number may be set for another purpose.
        if config.devices == 1 or fabric.local_rank == 0:
            if fresh:
                folder.clear()
            # Device 0 locks the folder for all devices.
            with folder.claim(config, aligned.fingerprint, aligned.header) as todo:
                active.on_all_devices(todo)
        else:
            exit_with_parent()
            with warnings_only("featreg"):
                active.on_all_devices(todo=False)  # replaced by device 0's value
    return folder


def _memory(recipe: Recipe, name: str) -> AbstractContextManager[None]:
    half = "" if recipe.precision == "bf16-mixed" else ", or use --precision bf16-mixed"
    return enough_memory(
        name,
        f"reduce --batch-size (now {recipe.batch_size}), --crop ({recipe.crop_s:g}) or --width "
        f"({recipe.width}){half}",
    )


class _Run:
    """The state of one run."""

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
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.config, self.aligned, self.folder, self.fabric = config, aligned, folder, fabric
        self.workers, self.save_every, self.tensorboard = workers, save_every, tensorboard
        self.command = command
        self.unused = 0
        self.chosen = self._training_clips()
        self.train = self.chosen.clips
        evaluated = ("valid",) if config.pretrain else ("valid", "test")
        self.evaluated = {name: aligned.split(name) for name in evaluated}
        self.scaling: Scaling | None = None
        self.objective: Any = (
            build_pretraining(config, aligned)
            if config.pretrain
            else build_objective(config, aligned, weights, self.chosen.with_labels().clips)
        )
        self._order(0, config.devices)
        self._cutter(self.train, config.features)
        for name, clips in self.evaluated.items():
            self._require_clips(name, clips)
            if not config.pretrain:
                require_metrics(aligned, name, clips)

    def on_all_devices(self, todo: bool) -> None:
        """Start the processes of the other devices, and train on all of them.

        Parameters
        ----------
        todo
            Whether the run is unfinished; the value of the first device is used.
        """
        self.fabric.launch()
        with kill_children_on_error(self.fabric):
            if not self.fabric.broadcast(todo):
                say(f"{self.folder.name}: already finished; use --fresh to repeat it")
                return
            say(f"{self.folder.path}: {self.config.title}")
            if self.unused:
                say(
                    f"training clips without labels, which are not used: {self.unused} of "
                    f"{self.unused + len(self.train)}; use them with --reg and --unlabelled-batch"
                )
            with _memory(self.config.recipe, self.folder.name):
                self.train_and_test()

    def train_and_test(self) -> None:
        """Train and test the model, or pretrain it, and write all files of the run folder."""
        path = self.folder.path
        if self.fabric.is_global_zero and not (path / "config.json").is_file():
            clips = {"train": self.chosen.labelled, "unlabelled": self.chosen.unlabelled}
            clips = {name: count for name, count in clips.items() if count}
            clips |= {name: len(found) for name, found in self.evaluated.items()}
            device = self.fabric.device.type
            about = (self.config, self.aligned, clips, self.objective, device, self.command)
            self.folder.write_json("config.json", run_config(*about))
        self.scaling = self._scaling()
        progress = self._fit()
        results = self._pretrained(progress) if self.config.pretrain else self._tested(progress)
        if self.fabric.is_global_zero:
            self.folder.write_json("report.json", results)
            (path / "state.pt").unlink(missing_ok=True)
        self.fabric.barrier()

    def _tested(self, progress: Progress) -> dict[str, Any]:
        """Test the model and write it with its predictions; return the values of the report."""
        path, header, test = self.folder.path, self.aligned.header, self.evaluated["test"]
        predictions = self._predict(self._chunks(test))
        valid = self._predict(self._chunks(self.evaluated["valid"]))
        if not self.fabric.is_global_zero:
            return {}
        card = Card.of(self.folder.name, self.config, header, self.scaling)
        write_model(path / "model.safetensors", self.objective.tagger, card)
        if self.scaling is not None:
            write_scaling(path, self.scaling)
        write_predictions(path, test, predictions, header.classes)
        task = self.aligned.task
        thresholds = thresholds_of(self.evaluated["valid"], valid, task)
        groups = groups_of(self.config.group, self.aligned, test)
        return report(progress, test, predictions, header.classes, task, thresholds, groups)

    def _pretrained(self, progress: Progress) -> dict[str, Any]:
        """Write the encoder; return the values of the report."""
        if self.fabric.is_global_zero:
            write_encoder(self.folder.path, self.objective.encoder)
        return pretraining_report(progress)

    def _reader(self) -> ClipReader:
        return ClipReader(self.train, self.aligned.dims(self.config.features))

    def _scaling(self) -> Scaling | None:
        """Return the normalization of the features, or None if it is disabled."""
        norm = self.config.recipe.feature_norm
        if norm == "none" or not self.config.features:
            return None
        scaling = Scaling.of(self._reader())
        return scaling if norm == "standardize" else scaling.centering()

    def _cutter(self, clips: Clips, features: tuple[str, ...]) -> Cutter:
        samples = crop_samples(self.config.recipe, self.aligned.header.audio_rate)
        return Cutter(self.aligned, clips, features, samples, self.scaling)

    def _order(self, rank: int, world: int) -> EpochOrder:
        config, cycle = self.config, None
        if config.unlabelled_batch:
            cycle = UnlabelledCycle(self.chosen, config.unlabelled_batch, config.seed)
        batch_size, labelled = config.recipe.batch_size, self.chosen.labelled
        least = config.recipe.epoch_steps
        return EpochOrder(labelled, batch_size, config.seed, rank, world, cycle, least)

    def _training_clips(self) -> TrainingClips:
        """Return the training clips; those without labels only if they are used."""
        config = self.config
        clips = self.aligned.split("train").fraction(config.fraction, config.seed)
        if config.pretrain:
            return TrainingClips(clips, len(clips))
        chosen = training_clips(clips, config.label_fraction, config.seed)
        if not chosen.labelled:
            raise FeatregError(
                f"{self.aligned.folder}, split train: no clip has labels, which training needs"
            )
        if not config.unlabelled_batch:
            self.unused = chosen.unlabelled
            return chosen.with_labels()
        if not chosen.unlabelled:
            raise UsageError(
                f"--unlabelled-batch {config.unlabelled_batch}: all {len(clips)} training clips of "
                f"{self.aligned.folder} have labels; use a --label-fraction below 1, or add clips "
                "without labels to the split train"
            )
        return chosen

    def _fit(self) -> Progress:
        config, fabric = self.config, self.fabric
        order = self._order(fabric.global_rank, fabric.world_size)
        recipe, unlabelled = config.recipe, config.unlabelled_batch
        augment = Augmentation(config.seed, recipe.gain, recipe.mixup, unlabelled)
        crops = Crops(self._cutter(self.train, config.features), config.seed, augment)
        loader = crop_loader(crops, order, self.workers)
        return Fit(
            fabric,
            config,
            fabric.setup_module(self.objective),
            loader,
            order,
            self._pretraining_validation() if config.pretrain else self._validation(),
            self.train.clip_id,
            self.folder.path,
            self.save_every,
            self.tensorboard,
        ).run()

    def _validation(self) -> Callable[[], Mapping[str, float]]:
        """Return a function that computes the metrics on the validation split."""
        clips = self.evaluated["valid"]
        chunks = self._chunks(clips)
        return lambda: self._metrics(clips, self._predict(chunks))

    def _pretraining_validation(self) -> Callable[[], Mapping[str, float]]:
        """Return a function that computes the regularizer on one crop of each validation clip."""
        config, fabric, clips = self.config, self.fabric, self.evaluated["valid"]
        size, devices = config.recipe.batch_size, fabric.world_size
        order = EpochOrder(len(clips), size, config.seed, fabric.global_rank, devices)
        crops = Crops(self._cutter(clips, config.features), config.seed)
        loader = crop_loader(crops, order, self.workers)
        return lambda: {"reg_loss": mean_regularization(fabric, self.objective, loader)}

    def _chunks(self, clips: Clips) -> Chunks:
        features = self.config.features if self.objective.tagger.needs_features else ()
        return Chunks(self._cutter(clips, features), self.config.recipe.chunks)

    def _predict(self, chunks: Chunks) -> Predictions:
        batch_size, objective = clips_per_batch(self.config.recipe), self.objective
        return predict(
            self.fabric, objective.tagger, chunks, objective.task, batch_size, self.workers
        )

    def _require_clips(self, split: str, clips: Clips) -> None:
        """Check that there are enough clips for each device: one, or two to compare."""
        devices, needed = self.config.devices, 2 if self.config.pretrain else 1
        if len(clips) < needed * devices:
            raise UsageError(
                f"{self.aligned.folder}, split {split}: clips: {len(clips)}, devices: {devices}; "
                f"clips needed for each device: {needed}; use fewer --devices"
            )

    def _metrics(self, clips: Clips, predictions: Predictions) -> Mapping[str, float]:
        classes, task = self.aligned.header.classes, self.aligned.task
        probability = predictions.probability
        return evaluate(clips.label, probability, clips.label_mask, classes, task).values
