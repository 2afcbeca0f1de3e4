"""Embeddings of several models in one plane."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from featreg.train.report.embedding_map import MOST_CLIPS, project, rotate


@pytest.fixture
def clusters() -> np.ndarray:
    """60 clips around three directions in 6 dimensions."""
    rng = np.random.default_rng(0)
    return np.repeat(10 * np.eye(6)[:3], 20, axis=0) + rng.standard_normal((60, 6))


def cosines(rows: np.ndarray) -> np.ndarray:
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units @ units.T


def test_a_rotated_copy_is_rotated_back(clusters: np.ndarray) -> None:
    rotation = ortho_group.rvs(6, random_state=1)
    first, second = rotate([clusters, 3 * clusters @ rotation])
    np.testing.assert_allclose(second, first, atol=1e-12)


def test_rotation_preserves_cosines_within_a_model(clusters: np.ndarray) -> None:
    other = np.random.default_rng(1).standard_normal((60, 4))  # of another dim
    first, second = rotate([clusters, other])
    assert second.shape == first.shape
    np.testing.assert_allclose(cosines(first), cosines(clusters), atol=1e-12)
    np.testing.assert_allclose(cosines(second), cosines(other), atol=1e-12)


def test_models_that_agree_have_one_map(clusters: np.ndarray) -> None:
    rotation = ortho_group.rvs(6, random_state=1)
    (first, second), kept = project([clusters, clusters @ rotation])
    assert kept.tolist() == list(range(60))
    apart = np.linalg.norm(first - second, axis=1)
    across = np.linalg.norm(first[:20].mean(axis=0) - first[20:40].mean(axis=0))
    # t-SNE stops before equal points meet; they are neighbors all the same.
    assert np.median(apart) < across / 10


@pytest.mark.parametrize(("clips", "models"), [(1, 2), (2, 1), (2, 2), (3, 1)])
def test_few_clips_can_be_projected(clips: int, models: int) -> None:
    rows = np.random.default_rng(0).standard_normal((clips, 4))
    points, kept = project([rows] * models)
    assert len(kept) == clips
    assert [each.shape for each in points] == [(clips, 2)] * models
    assert np.isfinite(points).all()


def test_many_clips_are_subsampled() -> None:
    rows = np.random.default_rng(0).standard_normal((MOST_CLIPS + 5, 2))
    (points,), kept = project([rows])
    assert len(points) == len(kept) == MOST_CLIPS
    assert (np.diff(kept) > 0).all()
