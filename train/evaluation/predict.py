"""Probabilities and embeddings of whole clips, from evenly spaced chunks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric import Fabric
from torch import Tensor

from featreg.datasets.base import Task

from ..config.presets import Recipe
from ..data.crops import Chunks, chunk_loader
from ..models.base import Tagger


class Predictions(NamedTuple):
    """Of every clip, in order.

    Attributes
    ----------
    probability
        Shape (clips, classes), float32 in [0, 1]: mean over the clip's chunks.
    embedding
        Shape (clips, B_E), float32: l, mean over frames and chunks.
    """

    probability: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]


def clips_together(recipe: Recipe) -> int:
    """Clips whose chunks go through the network at once: two training batches of pieces."""
    return max(1, recipe.batch_size * 2 // recipe.chunks)


@torch.no_grad()
def predict(
    fabric: Fabric, tagger: Tagger, chunks: Chunks, task: Task, clips_a_batch: int, workers: int
) -> Predictions:
    """Predict all clips of `chunks`; devices share the clips and get all results.

    Parameters
    ----------
    fabric
        Where it runs, and in which precision.
    tagger
        On the device of `fabric`; left in evaluation mode.
    chunks
        Pieces of the clips, which are as many as the devices at least.
    task
        ``multi-label`` makes logits probabilities by a sigmoid, ``single-label`` by a
        softmax.
    clips_a_batch
        Clips that go through the network at once.
    workers
        Threads that read; 0 reads here.
    """
    tagger.eval()
    mine = range(fabric.global_rank, len(chunks), fabric.world_size)
    clips, probability, embedding = [], [], []
    for read in chunk_loader(chunks, mine, clips_a_batch, workers):
        batch = fabric.to_device(read)
        pieces = batch.audio.shape[:2]  # clips, chunks
        with fabric.autocast():
            output = tagger(batch.audio.flatten(0, 1), batch.features.flatten(0, 1))
        p = probabilities(output.logits, task)
        l = output.embedding.float().mean(dim=1)  # noqa: E741  the paper's name
        clips.append(batch.clip)
        probability.append(p.view(*pieces, -1).mean(dim=1))
        embedding.append(l.unflatten(0, pieces).mean(dim=1))
    order = torch.cat(clips)
    return Predictions(
        *(_gather(fabric, torch.cat(part), order, len(chunks)) for part in (probability, embedding))
    )


def probabilities(logits: Tensor, task: Task) -> Tensor:
    """Of shape (n, classes), float32: a sigmoid for ``multi-label``, else a softmax."""
    logits = logits.float()
    return logits.sigmoid() if task == "multi-label" else logits.softmax(dim=1)


def _gather(fabric: Fabric, mine: Tensor, clips: Tensor, count: int) -> npt.NDArray[np.float32]:
    """Rows of all devices in the order of the clips; shape (count, ...)."""
    rows = mine.new_zeros(count, mine.shape[1])
    rows[clips] = mine
    everything: Any = fabric.all_reduce(rows, reduce_op="sum")  # a clip is 0 on the others
    gathered: npt.NDArray[np.float32] = everything.cpu().numpy()
    return gathered
