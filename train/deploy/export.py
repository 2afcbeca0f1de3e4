"""Export of a model to one file for other programs: ONNX, TorchScript, or safetensors.

A safetensors file contains the classifier and the description of the extractors that it needs;
`load_model` reads it. ONNX and TorchScript files contain the classifier alone (`exported_model`).
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
from torch import nn

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.shards.hdf5 import atomic_path

from .exported_model import ExportedModel, contents, exported_model
from .model_file import Card, read_model, write_model

SUFFIXES: Mapping[str, str] = {"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors"}
"""Suffix of the files of each format."""

TOLERANCE = 1e-4
"""Maximum difference of a probability: float32 sums in another order stay below it."""

Array = npt.NDArray[np.float32]
Runner = Callable[..., Array]


class Parity(NamedTuple):
    """Difference between an exported model and the original.

    Attributes
    ----------
    what
        Description of the input.
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
    Differences on inputs of several lengths.

    Raises
    ------
    FeatregError
        If the exported model differs.
    UsageError
        If a package for the format is missing.
    """
    tagger, card = read_model(model)
    original = exported_model(tagger, card)
    with atomic_path(path) as temporary:
        if format == "onnx":
            runner = _to_onnx(original, card, temporary)
        elif format == "torchscript":
            runner = _to_torchscript(original, card, temporary)
        else:
            write_model(temporary, tagger, card)
            runner = _runner(exported_model(*read_model(temporary)))
        found = list(_compare(original, runner))
        worst = max(found, key=lambda each: each.difference)
        if not worst.difference <= TOLERANCE:
            raise FeatregError(
                f"{path}: not written: on {worst.what} it differs from {card.name} by "
                f"{worst.difference:g}, expected at most {TOLERANCE:g}; use another --format"
            )
    return found


def _compare(original: ExportedModel, copy: Runner) -> Iterator[Parity]:
    rng = np.random.default_rng(0)
    for what, arrays in original.trials(rng):
        with torch.no_grad():
            expected = original(*(torch.from_numpy(array) for array in arrays)).numpy()
        yield Parity(what, float(np.abs(expected - copy(*arrays)).max()))


def _runner(module: nn.Module) -> Runner:
    def run(*arrays: Array) -> Array:
        with torch.no_grad():
            probability: Array = module(*(torch.from_numpy(array) for array in arrays)).numpy()
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


def _to_torchscript(model: ExportedModel, card: Card, path: Path) -> Runner:
    with _quietly(), torch.no_grad():
        jit: Any = torch.jit  # has no type annotations
        traced = jit.trace(model, model.example(), check_trace=False)
        jit.save(traced, path, _extra_files={"card.json": card.to_json()})
        return _runner(jit.load(path, map_location="cpu"))


def _to_onnx(model: ExportedModel, card: Card, path: Path) -> Runner:
    try:
        import onnxruntime
        import onnxscript.optimizer
    except ImportError as error:
        raise UsageError(
            f"--format onnx needs the package {error.name}: pip install '.[onnx]' in featreg's "
            "repository"
        ) from None
    with _quietly():
        try:
            program: Any = torch.onnx.export(
                model,
                model.example(),
                dynamo=True,
                dynamic_shapes=model.dynamic_shapes(),
                input_names=list(model.inputs),
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
            card=card.to_json(),
            classes="\n".join(card.classes),
            sample_rate=str(card.sample_rate),
            contains=contents(card),
        )
        for node in program.model.graph:  # source locations of this machine
            node.metadata_props.clear()
        program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*arrays: Array) -> Array:
        inputs = dict(zip(model.inputs, arrays, strict=True))
        [probability] = session.run(["probability"], inputs)
        found: Array = probability
        return found

    return run
