"""Embeddings of several models in one plane, so that their maps can be laid side by side.

t-SNE depends on its start as much as on its data: two maps made apart differ even where
two models agree. Here all models share one: each model's embeddings are turned onto the
first's by the rotation that brings equal clips nearest (orthogonal Procrustes,
Schönemann 1966), and all are then projected together. A rotation changes no cosine
between two clips of a model, so what separates clips in a map is the model's own doing,
and a clip that keeps its neighbours keeps its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import orthogonal_procrustes
from sklearn.manifold import TSNE

MOST_CLIPS = 1000
"""More points hide each other."""

Array = npt.NDArray[Any]


def project(embeddings: Sequence[Array]) -> tuple[list[Array], Array]:
    """Places in the plane.

    Parameters
    ----------
    embeddings
        Of each model, shape (clips, its dim), the same clips in the same order.

    Returns
    -------
    For each model, shape (kept, 2); and the indices of the clips that were kept, at
    most `MOST_CLIPS` of them.
    """
    clips = len(embeddings[0])
    kept = np.sort(np.random.default_rng(0).permutation(clips)[:MOST_CLIPS])
    turned = turn([each[kept] for each in embeddings])
    every = np.concatenate(turned).astype(np.float32)
    # t-SNE refuses a perplexity that is not below the number of points.
    perplexity = min(30.0, max(2.0, (len(kept) - 1) / 4), len(every) - 1)
    tsne = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=0)
    points = tsne.fit_transform(every)
    return np.split(points, len(turned)), kept


def turn(embeddings: Sequence[Array]) -> list[Array]:
    """Rows of length 1, all models' brought onto the first's by a rotation.

    Cosines between the rows of one model stay what they were.

    Parameters
    ----------
    embeddings
        Of each model, shape (clips, its dim); a smaller dim is filled up with zeros.
    """
    dim = max(each.shape[1] for each in embeddings)
    units = [_unit(np.pad(each, ((0, 0), (0, dim - each.shape[1])))) for each in embeddings]
    first = units[0]
    return [first] + [each @ orthogonal_procrustes(each, first)[0] for each in units[1:]]


def _unit(rows: Array) -> Array:
    rows = rows.astype(np.float64)
    units: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return units
