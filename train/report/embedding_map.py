"""Projection of the embeddings of several models into one plane, for comparable maps.

The result of t-SNE depends on its initialization, so that separate projections of two models
differ even if the models agree. Here all models share one projection. The embeddings of each
model are first rotated onto those of the first model such that the distances between the same
clips are smallest (orthogonal Procrustes problem, Schönemann 1966), and then projected
together. A rotation preserves the cosines between the clips of a model, so that the separation
of clips in a map is a property of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import orthogonal_procrustes
from sklearn.manifold import TSNE
from sklearn.preprocessing import normalize

MOST_CLIPS = 1000
"""Maximum number of points in a map; more points would overlap."""

Array = npt.NDArray[Any]


def project(embeddings: Sequence[Array]) -> tuple[list[Array], Array]:
    """Project the embeddings of several models into one plane.

    Parameters
    ----------
    embeddings
        Embeddings of each model, of shape (clips, dimensions of the model), with the same
        clips in the same order.

    Returns
    -------
    points
        For each model, coordinates of shape (kept clips, 2).
    kept
        Indices of the kept clips: a random selection of `MOST_CLIPS` if there are more.
    """
    clips = len(embeddings[0])
    kept = np.sort(np.random.default_rng(0).permutation(clips)[:MOST_CLIPS])
    rotated = rotate([each[kept] for each in embeddings])
    every = np.concatenate(rotated).astype(np.float32)
    # t-SNE requires a perplexity below the number of points.
    perplexity = min(30.0, max(2.0, (len(kept) - 1) / 4), len(every) - 1)
    tsne = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=0)
    points = tsne.fit_transform(every)
    return np.split(points, len(rotated)), kept


def rotate(embeddings: Sequence[Array]) -> list[Array]:
    """Normalize embeddings to length 1, and rotate those of each model onto the first model's.

    Cosines between the embeddings of one model do not change.

    Parameters
    ----------
    embeddings
        Embeddings of each model, of shape (clips, dimensions of the model). Models with fewer
        dimensions are zero-padded.
    """
    dim = max(each.shape[1] for each in embeddings)
    units = [
        np.pad(normalize(each.astype(np.float64)), ((0, 0), (0, dim - each.shape[1])))
        for each in embeddings
    ]
    first = units[0]
    return [first] + [each @ orthogonal_procrustes(each, first)[0] for each in units[1:]]
