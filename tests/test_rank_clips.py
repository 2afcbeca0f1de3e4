"""Rankings of mistakes and uncertain clips, against closed forms and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from featreg.train.evaluation.rank_clips import (
    confidence,
    decisions,
    false_negatives,
    false_positives,
    least_certain,
    uncertainty,
)

IDS = np.array(["d", "c", "b", "a"])
THRESHOLDS = (0.5, 0.1)


def bits(label: list[list[int]]) -> np.ndarray:
    return np.array(label, np.uint8)


def ranks(find: object, label: np.ndarray, mask: np.ndarray, p: np.ndarray, task: str) -> list:
    arrays = decisions(p, task, THRESHOLDS), confidence(p, task, THRESHOLDS)
    found = find(IDS, label, mask, *arrays)
    ids = IDS[found.clip].tolist()
    return list(zip(ids, found.classes.tolist(), found.score.round(6).tolist(), strict=True))


def test_mistakes_of_one_class_per_clip() -> None:
    p = np.array([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.4, 0.6]], np.float32)
    label = bits([[1, 0], [1, 0], [1, 0], [1, 0]])
    ones = np.ones_like(label)
    found = ranks(false_positives, label, ones, p, "single-label")
    assert found == [("b", 1, 0.9), ("c", 1, 0.9), ("a", 1, 0.6)]  # a tie: by the id
    ones[2] = 0
    found = ranks(false_positives, label, ones, p, "single-label")
    assert [each[0] for each in found] == ["c", "a"]


def test_mistakes_are_ranked_by_the_distance_from_the_threshold() -> None:
    p = np.array([[0.75, 0.05], [0.6, 0.55], [0.25, 0.09], [0.5, 0.1]], np.float32)
    label = bits([[0, 1], [0, 0], [1, 1], [1, 1]])
    ones = np.ones_like(label)
    # (0.75 - 0.5) / 0.5; the larger of 0.1 / 0.5 and 0.45 / 0.9
    assert ranks(false_positives, label, ones, p, "multi-label") == [("c", 1, 0.5), ("d", 0, 0.5)]
    # (0.1 - 0.05) / 0.1; the larger of 0.25 / 0.5 and 0.01 / 0.1. At the threshold: predicted.
    assert ranks(false_negatives, label, ones, p, "multi-label") == [("b", 0, 0.5), ("d", 1, 0.5)]
    mask = bits([[0, 1], [1, 0], [0, 1], [1, 1]])
    assert ranks(false_positives, label, mask, p, "multi-label") == [("c", 0, 0.2)]
    assert ranks(false_negatives, label, mask, p, "multi-label") == [("d", 1, 0.5), ("b", 1, 0.1)]


def test_entropy_of_one_class_per_clip() -> None:
    p = np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]], np.float32)
    found = uncertainty(p, "single-label", np.ones_like(p, np.uint8))
    np.testing.assert_allclose(found, [1, 0, 0.5], atol=1e-7)


def test_entropy_of_several_classes_is_a_mean_over_those_annotated() -> None:
    p = np.array([[0.5, 1.0], [0.1, 0.5], [0.0, 1.0]], np.float32)
    mask = bits([[1, 1], [1, 0], [1, 1]])
    tenth = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9))
    found = uncertainty(p, "multi-label", mask)
    np.testing.assert_allclose(found, [0.5, tenth, 0], atol=1e-7)


def test_uncertain_clips_with_equal_entropy_are_ranked_by_their_id() -> None:
    found = least_certain(IDS, np.array([0.2, 0.7, 0.2, 0.9]))
    assert IDS[found.clip].tolist() == ["a", "c", "b", "d"]
    assert found.classes.tolist() == [-1] * 4


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_rankings_equal_slow_loops(task: str) -> None:
    rng = np.random.default_rng(0)
    ids = np.array([f"c{k:02d}" for k in rng.permutation(60)])
    p = rng.integers(0, 11, (60, 3)) / 10  # many ties
    label = rng.integers(0, 2, (60, 3)).astype(np.uint8)
    mask = rng.integers(0, 2, (60, 3)).astype(np.uint8)
    thresholds = (0.3, 0.5, 0.8)
    predicted = decisions(p, task, thresholds)
    sure = confidence(p, task, thresholds)
    for find, wrong in ((false_positives, (0, True)), (false_negatives, (1, False))):
        expected = []
        for k, name in enumerate(ids):
            scores = [
                sure[k, j]
                for j in range(3)
                if mask[k, j] and (label[k, j], predicted[k, j]) == wrong
            ]
            if scores:
                expected.append((-max(scores), name))
        found = find(ids, label, mask, predicted, sure)
        assert ids[found.clip].tolist() == [name for _, name in sorted(expected)]
        assert sorted(-found.score) == [score for score, _ in sorted(expected)]
