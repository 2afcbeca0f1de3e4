"""Export of a model to one file for other programs: ONNX, TorchScript, or safetensors.

The exported model maps audio of shape (n, samples), mono in [-1, 1] at its sample rate, to
probabilities of shape (n, classes), for any n and any length. Audio shorter than a training crop
is repeated from its start, as in training; longer audio is processed as a whole
(`Classifier.predict` averages over chunks instead, as in evaluation).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.shards.hdf5 import atomic_path

from ..evaluation.predict import probabilities
from ..models.base import Tagger
from ..models.sizes import at_least
from .model_file import Card, read_model, write_model

SUFFIXES: Mapping[str, str] = {"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors"}
"""Suffix of the files of each format."""

TOLERANCE = 1e-4
"""Maximum difference of a probability: float32 sums in another order stay below it."""

Array = npt.NDArray[np.float32]
Runner = Callable[[Array], Array]


class AudioModel(nn.Module):
    """From audio to probabilities, as one module; see the module's docstring.

    Parameters
    ----------
    tagger
        Model in evaluation mode.
    card
        Card of the model.

    Shape
    -----
    (n, samples) -> (n, classes).
    """

    def __init__(self, tagger: Tagger, card: Card) -> None:
        super().__init__()
        self.tagger, self.task, self.samples = tagger, card.task, card.samples
        self.row = round(card.resolution_s * card.sample_rate)

    def forward(self, audio: Tensor) -> Tensor:
        """See the class."""
        length = audio.shape[1]
        whole = (length + self.row - 1) // self.row * self.row
        times = (self.samples + whole - 1) // whole  # 1 for audio that is long enough
        repeated = F.pad(audio, (0, whole - length)).repeat(1, times)
        audio = repeated[:, : at_least(length, self.samples)]
        return probabilities(self.tagger(audio).logits, self.task)


class Parity(NamedTuple):
    """Difference between an exported model and the original.

    Attributes
    ----------
    what
        Description of the audio.
    difference
        Maximum absolute difference of a probability.
    """

    what: str
    difference: float


def export(model: Path, format: str, path: Path) -> list[Parity]:
    """Export a model for other programs, and compare it with the original.

    Parameters
    ----------
    model
        ``model.safetensors`` of a run.
    format
        A name in `SUFFIXES`.
    path
        Output file.

    Returns
    -------
    Differences on audio of several lengths.

    Raises
    ------
    FeatregError
        If the model needs features in addition to the audio, or the exported model differs.
    UsageError
        If a package for the format is missing.
    """
    tagger, card = read_model(model)
    card.require_audio_only("an exported model")
    original = AudioModel(tagger, card).eval()
    with atomic_path(path) as temporary:
        if format == "onnx":
            runner = _to_onnx(original, card, temporary)
        elif format == "torchscript":
            runner = _to_torchscript(original, card, temporary)
        else:
            write_model(temporary, tagger, card)
            runner = _runner(AudioModel(*read_model(temporary)).eval())
        found = list(_compare(_runner(original), runner, card))
        worst = max(found, key=lambda each: each.difference)
        if not worst.difference <= TOLERANCE:
            raise FeatregError(
                f"{path}: not written: on {worst.what} it differs from {card.name} by "
                f"{worst.difference:g}, expected at most {TOLERANCE:g}; use another --format"
            )
    return found


def _compare(original: Runner, copy: Runner, card: Card) -> Iterator[Parity]:
    rng = np.random.default_rng(0)
    for what, clips, length in (
        ("random audio", 1, card.samples),
        ("short audio", 1, card.samples // 10),
        ("a batch of longer audio", 3, card.samples * 7 // 4),
    ):
        audio = (0.1 * rng.standard_normal((clips, length))).astype(np.float32)
        difference = float(np.abs(original(audio) - copy(audio)).max())
        yield Parity(f"{what} ({clips} x {length / card.sample_rate:g} s)", difference)


def _runner(module: nn.Module) -> Runner:
    def run(audio: Array) -> Array:
        with torch.no_grad():
            probability: Array = module(torch.from_numpy(audio)).numpy()
        return probability

    return run


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppress the exporters' log messages and warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _to_torchscript(model: AudioModel, card: Card, path: Path) -> Runner:
    example = torch.zeros(2, card.samples)
    with _quietly(), torch.no_grad():
        jit: Any = torch.jit  # has no type annotations
        traced = jit.trace(model, (example,), check_trace=False)
        jit.save(traced, path, _extra_files={"card.json": card.to_json()})
        return _runner(jit.load(path, map_location="cpu"))


def _to_onnx(model: AudioModel, card: Card, path: Path) -> Runner:
    try:
        import onnxruntime
        import onnxscript.optimizer
    except ImportError as error:
        raise UsageError(
            f"--format onnx needs the package {error.name}: pip install '.[onnx]' in featreg's "
            "repository"
        ) from None
    example = torch.zeros(2, card.samples)
    sizes = {0: torch.export.Dim("n"), 1: torch.export.Dim("samples", min=2)}
    with _quietly():
        try:
            program: Any = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=(sizes,),
                input_names=["audio"],
                output_names=["probability"],
                optimize=False,  # would fold batch norms into convolutions
                verbose=False,
            )
        except torch.onnx.OnnxExporterError:
            raise FeatregError(
                f"torch {torch.__version__} cannot export {card.encoder} to ONNX, torch 2.13 can; "
                "or use --format torchscript"
            ) from None
        onnxscript.optimizer.fold_constants(program.model)
        onnxscript.optimizer.remove_unused_nodes(program.model)
        program.model.metadata_props.update(
            card=card.to_json(), classes="\n".join(card.classes), sample_rate=str(card.sample_rate)
        )
        for node in program.model.graph:  # source locations of this machine
            node.metadata_props.clear()
        program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(audio: Array) -> Array:
        [probability] = session.run(["probability"], {"audio": audio})
        found: Array = probability
        return found

    return run
