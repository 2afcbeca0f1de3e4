"""Metrics against scikit-learn, on paper, under masks, and their confidence intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from featreg.datasets.base import FeatregError
from featreg.train.evaluation.bootstrap import bootstrap, draws, interval, resampled
from featreg.train.evaluation.metrics import (
    METRICS,
    THRESHOLD,
    Label,
    Probability,
    evaluate,
    per_class,
)

Predictions = tuple[Label, Probability, Label]


def predictions(seed: int = 0, clips: int = 60, classes: int = 5) -> Predictions:
    """Noisy predictions with many ties, a fifth of the entries not annotated."""
    rng = np.random.default_rng(seed)
    label = (rng.random((clips, classes)) < 0.3).astype(np.uint8)
    probability = np.round(0.4 * label + 0.6 * rng.random((clips, classes)), 1)
    mask = (rng.random((clips, classes)) < 0.8).astype(np.uint8)
    return label, probability, mask


def single_label(seed: int = 0, clips: int = 60, classes: int = 4) -> Predictions:
    rng = np.random.default_rng(seed)
    label = np.eye(classes, dtype=np.uint8)[rng.integers(classes, size=clips)]
    probability = rng.dirichlet(np.ones(classes), size=clips) + 0.3 * label
    return label, probability, np.ones_like(label)


def test_equal_to_scikit_learn_where_all_is_annotated() -> None:
    label, probability, _ = predictions()
    mask = np.ones_like(label)
    chosen = probability > THRESHOLD
    expected = {
        "pr_auc": sklearn_metrics.average_precision_score(label, probability, average="macro"),
        "roc_auc": sklearn_metrics.roc_auc_score(label, probability, average="macro"),
        "f1_samples": sklearn_metrics.f1_score(label, chosen, average="samples", zero_division=0),
        "f1_micro": sklearn_metrics.f1_score(label, chosen, average="micro"),
    }
    values = evaluate(label, probability, mask, list("abcde"), "multi-label").values
    assert values == pytest.approx(expected, abs=1e-12)


def test_accuracy_is_scikit_learns() -> None:
    label, probability, mask = single_label()
    expected = sklearn_metrics.accuracy_score(label.argmax(1), probability.argmax(1))
    values = evaluate(label, probability, mask, list("abcd"), "single-label").values
    assert values["accuracy"] == expected
    assert "f1_samples" not in values


def test_accuracy_counts_clips_whose_class_is_known() -> None:
    label = np.array([[1, 0], [0, 1], [0, 1], [0, 0]], np.uint8)
    probability = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    mask = np.array([[1, 1], [1, 1], [1, 0], [1, 1]], np.uint8)
    assert METRICS["accuracy"](label, probability, mask) == 1 / 2
    counts = np.array([[1, 3], [1, 1], [1, 0], [1, 0]], np.int32)
    values = resampled(label, probability, mask, counts, "single-label")["accuracy"]
    assert values.tolist() == [1 / 2, 3 / 4]


def test_masked_entries_do_not_matter() -> None:
    label, probability, mask = predictions()
    for row, y, p, m in zip(
        per_class(label, probability, mask, list("abcde")),
        label.T,
        probability.T,
        mask.T.astype(bool),
        strict=True,
    ):
        assert row.annotated == m.sum()
        assert row.positives == y[m].sum()
        assert row.pr_auc == sklearn_metrics.average_precision_score(y[m], p[m])
        assert row.roc_auc == sklearn_metrics.roc_auc_score(y[m], p[m])

    other = np.where(mask, probability, 1 - probability)
    wrong = np.where(mask, label, 1 - label)
    for metric in METRICS.values():
        if "accuracy" not in metric.name:  # of a task where every class of a clip is known
            assert metric(wrong, other, mask) == metric(label, probability, mask)


def test_f1_on_paper() -> None:
    label = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=np.uint8)
    chosen = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    mask = np.ones_like(label)
    probability = chosen * 0.9
    # Clips: 2/4, 1, nothing to find (counts as 0), nothing found. Together: 2 hits,
    # 2 false alarms, 2 misses.
    assert METRICS["f1_samples"](label, probability, mask) == pytest.approx((0.5 + 1) / 4)
    assert METRICS["f1_micro"](label, probability, mask) == pytest.approx(4 / 8)
    mask[2] = 0  # a clip that nobody annotated is no clip
    assert METRICS["f1_samples"](label, probability, mask) == pytest.approx((0.5 + 1) / 3)
    mask[0, 2] = 0  # the false alarm is unknown
    assert METRICS["f1_samples"](label, probability, mask) == pytest.approx((2 / 3 + 1) / 3)


def test_a_task_of_one_class_has_every_metric() -> None:
    label = np.array([[1], [0], [0]], dtype=np.uint8)
    probability = np.array([[0.05], [0.05], [0.3]])
    mask = np.ones_like(label)
    values = evaluate(label, probability, mask, ["siren"], "multi-label").values
    assert (values["f1_samples"], values["f1_micro"]) == (0, 0)  # right on one clip of three
    probability[0] = 0.9
    values = evaluate(label, probability, mask, ["siren"], "multi-label").values
    # One hit and one false alarm: 2 / 3 over all, 1 of 3 clips.
    assert (values["f1_samples"], values["f1_micro"]) == pytest.approx((1 / 3, 2 / 3))


def test_threshold_is_exclusive() -> None:
    label = mask = np.ones((2, 1), dtype=np.uint8)
    assert METRICS["f1_micro"](label, np.full((2, 1), 0.1), mask) == 0
    assert METRICS["f1_micro"](label, np.full((2, 1), 0.11), mask) == 1


def test_classes_without_a_score_are_named_and_excluded_from_the_mean() -> None:
    label, probability, mask = predictions(classes=4)
    label[:, 1] = 0
    label[:, 2] = 1
    mask[:, 3] = 0
    evaluation = evaluate(label, probability, mask, list("abcd"), "multi-label")
    a, b, c, d = evaluation.classes
    assert (b.pr_auc, b.roc_auc, b.positives) == (None, None, 0)
    assert (c.pr_auc, c.roc_auc) == (1.0, None)
    assert (d.pr_auc, d.roc_auc, d.annotated) == (None, None, 0)
    assert evaluation.undefined == {"pr_auc": ("b", "d"), "roc_auc": ("b", "c", "d")}
    assert a.pr_auc is not None
    assert evaluation.values["pr_auc"] == pytest.approx((a.pr_auc + 1) / 2)
    assert evaluation.values["roc_auc"] == a.roc_auc


def test_a_mean_over_no_class_is_an_error() -> None:
    label, probability, mask = predictions()
    with pytest.raises(FeatregError, match="macro PR-AUC"):
        METRICS["pr_auc"](0 * label, probability, mask)


def test_every_metric_has_a_name_and_a_direction() -> None:
    assert all(name == metric.name for name, metric in METRICS.items())
    assert METRICS["pr_auc"].improves(0.5, 0.4)
    assert not METRICS["pr_auc"].improves(0.4, 0.4)
    falling = replace(METRICS["pr_auc"], higher_is_better=False)
    assert falling.improves(0.4, 0.5)
    assert not falling.improves(0.4, 0.4)


@pytest.mark.parametrize("task", ["multi-label", "single-label"])
def test_resampled_metrics_are_the_metrics_of_the_drawn_clips(task: str) -> None:
    label, probability, mask = predictions() if task == "multi-label" else single_label()
    rng = np.random.default_rng(1)
    drawn = [np.arange(60)] + [rng.integers(60, size=60) for _ in range(5)]
    counts = np.stack([np.bincount(d, minlength=60) for d in drawn], axis=1).astype(np.int32)
    assert task in ("multi-label", "single-label")
    result = resampled(label, probability, mask, counts, task)
    for name, values in result.items():
        for d, value in zip(drawn, values, strict=True):
            # 1e-12: the same sums in another order; nearly all scores are tied
            expected = METRICS[name](label[d], probability[d], mask[d])
            assert value == pytest.approx(expected, abs=1e-12), name


def test_a_draw_without_positives_excludes_the_class_from_its_mean() -> None:
    label = np.array([[1, 1], [0, 1], [0, 0]], dtype=np.uint8)
    probability = np.array([[0.9, 0.3], [0.2, 0.6], [0.4, 0.5]])
    counts = np.array([[0], [1], [2]], dtype=np.int32)
    mask = np.ones_like(label)
    values = resampled(label, probability, mask, counts, "multi-label")
    assert values["pr_auc"] == values["roc_auc"] == [1.0]
    mask[:, 1] = 0
    assert np.isnan(resampled(label, probability, mask, counts, "multi-label")["pr_auc"])


def test_interval_of_a_proportion_is_the_textbooks() -> None:
    clips = 400
    label = np.eye(2, dtype=np.uint8)[np.arange(clips) % 2]
    right = np.arange(clips) < 0.7 * clips
    probability = np.where(right[:, None] == label, 0.9, 0.1)
    known = (label, probability, np.ones_like(label))
    measured = evaluate(*known, ("even", "odd"), "single-label").values
    found = bootstrap(*known, "single-label", measured, resamples=2000)["accuracy"]
    half = 1.96 * np.sqrt(0.7 * 0.3 / clips)
    # a twentieth of the width: 2,000 draws put the 2.5 % quantile there
    assert found == pytest.approx((0.7 - half, 0.7 + half), abs=0.1 * half)


def test_an_interval_is_what_the_level_leaves_within_0_and_1() -> None:
    values = np.r_[np.linspace(0.2, 0.8, 101), np.nan]
    assert interval(values, 0.5) == interval(values, 0.5, 0.95)
    assert interval(values, 0.5, 0.9) == pytest.approx((0.23, 0.77))
    assert interval(values, 0.6, 0.9) == pytest.approx((0.33, 0.87))
    assert interval(values, 0.05, 0.9) == pytest.approx((0.0, 0.32))
    assert interval(values, 0.95, 0.9) == pytest.approx((0.68, 1.0))


def test_draws_are_with_replacement_and_by_the_seed() -> None:
    counts = draws(7)
    assert counts.shape == (7, 1000)
    assert counts.sum(axis=0).tolist() == [7] * 1000
    np.testing.assert_array_equal(counts, draws(7, 1000, 0))
    assert (counts != draws(7, 1000, 1)).any()
    assert counts.mean(axis=1) == pytest.approx(np.ones(7), abs=0.1)
    assert counts.max() > 2


def test_intervals_are_those_of_the_draws_of_their_seed() -> None:
    label, probability, mask = predictions()
    values = evaluate(label, probability, mask, list("abcde"), "multi-label").values
    found = bootstrap(label, probability, mask, "multi-label", values)
    drawn = resampled(label, probability, mask, draws(60, 1000, 0), "multi-label")
    assert found == {name: interval(drawn[name], values[name], 0.95) for name in values}


def test_intervals_are_repeatable_and_contain_the_value() -> None:
    label, probability, mask = predictions()
    values = evaluate(label, probability, mask, list("abcde"), "multi-label").values
    first = bootstrap(label, probability, mask, "multi-label", values, resamples=200)
    assert first == bootstrap(label, probability, mask, "multi-label", values, resamples=200)
    assert first.keys() == values.keys()
    assert all(first[name].low < value < first[name].high for name, value in values.items())


def test_intervals_are_centered_at_the_measured_value() -> None:
    rng = np.random.default_rng(0)
    label = (rng.random((60, 5)) < 0.15).astype(np.uint8)  # of few positives
    probability, mask = rng.random((60, 5)), np.ones_like(label)
    every = evaluate(label, probability, mask, list("abcde"), "multi-label").values
    measured = every["pr_auc"]
    values = resampled(label, probability, mask, draws(60), "multi-label")["pr_auc"]
    assert values.mean() > measured + 0.02  # clips that are drawn twice lift it
    low, high = bootstrap(label, probability, mask, "multi-label", every)["pr_auc"]
    expected = np.quantile(values - values.mean() + measured, [0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(expected), abs=1e-12)


def test_probabilities_that_are_not_finite_are_one_line() -> None:
    label = np.eye(4, 2, dtype=np.uint8)
    probability = np.full((4, 2), 0.5, np.float32)
    probability[2, 1] = np.nan
    with pytest.raises(FeatregError, match=r"1 of 4 clips.*--lr"):
        evaluate(label, probability, np.ones_like(label), ("a", "b"), "multi-label")
