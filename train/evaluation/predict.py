"""Probabilities and embeddings of clips, averaged over evenly spaced chunks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric import Fabric
from torch import Tensor

from featreg.datasets.base import Task

from ..config.presets import Recipe
from ..data.clip_reader import ClipReader
from ..data.crops import Chunks, chunk_loader
from ..models.base import Tagger
from ..models.probe import Probe, pool_frames


class Predictions(NamedTuple):
    """Predictions of all clips, in order.

    Attributes
    ----------
    probability
        Mean probability over the clip's chunks, in [0, 1], of shape (clips, classes), float32.
    embedding
        Mean of l over the clip's frames and chunks, of shape (clips, B_E), float32.
    """

    probability: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]


def clips_per_batch(recipe: Recipe) -> int:
    """Return the number of clips per evaluation batch, whose chunks fill two training batches."""
    return max(1, recipe.batch_size * 2 // recipe.chunks)


@torch.no_grad()
def predict(
    fabric: Fabric, tagger: Tagger, chunks: Chunks, task: Task, batch_size: int, workers: int
) -> Predictions:
    """Predict all clips of `chunks`.

    Several devices share the clips, and each returns the predictions of all clips.

    Parameters
    ----------
    fabric
        Devices and precision.
    tagger
        Classifier on the device of `fabric`; it is set to evaluation mode.
    chunks
        Chunks of the clips; there must be at least one clip per device.
    task
        ``multi-label`` (probabilities by a sigmoid) or ``single-label`` (by a softmax).
    batch_size
        Number of clips per batch.
    workers
        Number of reading threads; with 0, the main thread reads.
    """
    tagger.eval()
    own_clips = range(fabric.global_rank, len(chunks), fabric.world_size)
    clips, probability, embedding = [], [], []
    for loaded in chunk_loader(chunks, own_clips, batch_size, workers):
        batch = fabric.to_device(loaded)
        shape = batch.audio.shape[:2]  # clips, chunks
        with fabric.autocast():
            output = tagger(batch.audio.flatten(0, 1), batch.features.flatten(0, 1))
        p = probabilities(output.logits, task)
        l = output.embedding.float().mean(dim=1)  # noqa: E741  the paper's name
        clips.append(batch.clip)
        probability.append(p.view(*shape, -1).mean(dim=1))
        embedding.append(l.unflatten(0, shape).mean(dim=1))
    order = torch.cat(clips)
    return Predictions(
        *(_gather(fabric, torch.cat(part), order, len(chunks)) for part in (probability, embedding))
    )


@torch.no_grad()
def pooled_features(reader: ClipReader, pool: str) -> Tensor:
    """Return the features of all clips of `reader`, pooled over time, of shape (clips, dim).

    Parameters
    ----------
    reader
        Reader of the clips.
    pool
        One of `models.probe.POOLS`.
    """
    return torch.cat([pool_frames(torch.from_numpy(frames)[None], pool) for frames in reader])


@torch.no_grad()
def predict_pooled(probe: Probe, pooled: Tensor, task: Task) -> Predictions:
    """Predict clips by a probe on the CPU; the embedding is its standardized input.

    Parameters
    ----------
    probe
        The probe.
    pooled
        Features of the clips, pooled over time, of shape (clips, dim).
    task
        ``multi-label`` or ``single-label``.
    """
    output = probe.eval().classify(pooled)
    probability = probabilities(output.logits, task)
    return Predictions(probability.numpy(), output.embedding[:, 0].numpy())


def probabilities(logits: Tensor, task: Task) -> Tensor:
    """Return the sigmoid (``multi-label``) or softmax (``single-label``) of logits, in float32.

    Parameters
    ----------
    logits
        Shape (n, classes).
    task
        ``multi-label`` or ``single-label``.
    """
    logits = logits.float()
    return logits.sigmoid() if task == "multi-label" else logits.softmax(dim=1)


def _gather(fabric: Fabric, values: Tensor, clips: Tensor, count: int) -> npt.NDArray[np.float32]:
    """Return the values of all devices in the order of the clips, of shape (count, ...)."""
    padded = values.new_zeros(count, values.shape[1])  # clips of other devices stay 0
    padded[clips] = values
    total: Any = fabric.all_reduce(padded, reduce_op="sum")
    gathered: npt.NDArray[np.float32] = total.cpu().numpy()
    return gathered
