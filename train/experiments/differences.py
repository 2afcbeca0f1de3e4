"""Sentences on the differences between methods, and on what their numbers depend on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..config.presets import ALPHAS
from ..evaluation.metrics import METRICS
from .compare import Group, key_of, outer


def differences(groups: Sequence[Group]) -> list[str]:
    """Return a sentence per group on the difference from its baseline, paired by seed or fold.

    The baseline of a group has the same recipe and the same training clips.
    """
    baselines = [each for each in groups if each.config.method == "baseline"]
    if not baselines:
        return ["These runs include no baseline to compare the methods with."]
    return [
        _difference(each, [first for first in baselines if _comparable(each, first)])
        for each in groups
        if each.config.method != "baseline"
    ]


def _comparable(each: Group, baseline: Group) -> bool:
    method = ["seed", "reg", "fusion", "features", "alpha", "unlabelled_batch", "recipe", "probe"]
    method += ["more_alphas", "alpha_schedule", "init", "init_sha256"]
    if each.config.probe:  # it shares the clips and the metric with networks of every recipe
        method += ["preset", "devices"]
        return key_of(each.results[0], *method) == key_of(baseline.results[0], *method)
    recipes = [  # `feature_norm` applies to features only
        dataclasses.replace(group.config.recipe, feature_norm="none") for group in (each, baseline)
    ]
    keys = [key_of(group.results[0], *method) for group in (each, baseline)]
    return recipes[0] == recipes[1] and keys[0] == keys[1]


def _difference(each: Group, baselines: Sequence[Group]) -> str:
    if not baselines:
        return (
            f"{each.label}: these runs include no baseline with the same settings and training "
            "clips."
        )
    first = baselines[0]
    metric = first.config.metric
    title = METRICS[metric].title
    ours, theirs = each.values(metric), first.values(metric)
    shared = [key for key in ours if key in theirs]
    noun = "fold" if each.folds else "seed"
    if not shared:
        return f"{each.label} and {first.label} have no {noun} in common."
    sign = 1 if METRICS[metric].higher_is_better else -1
    pairs: dict[int, list[float]] = {}
    for key in shared:  # of a cross-validation, the mean over the seeds of each fold
        pairs.setdefault(outer(key), []).append(sign * (ours[key] - theirs[key]))
    gains = np.array([np.mean(found) for found in pairs.values()])
    word = "better" if gains.mean() > 0 else "worse"
    sentence = f"{each.label} is {abs(gains.mean()):.3f} {word} than {first.label} in {title}"
    if not gains.any():
        sentence = f"{each.label} and {first.label} do not differ in {title}"
    if len(gains) == 1:
        return f"{sentence}, with one {noun} only, which is not conclusive."
    if not gains.any():
        return f"{sentence}, with {len(gains)} {noun}s."
    if (gains > 0).all() or (gains < 0).all():
        return f"{sentence}, and {word} with each of {len(gains)} {noun}s."
    return (
        f"{sentence} on average, but the differences range from {gains.min():+.3f} to "
        f"{gains.max():+.3f} over {len(gains)} {noun}s: no clear difference."
    )


def ceilings(groups: Sequence[Group]) -> list[str]:
    """Return a sentence per regularized group on its way from its baseline to the probe.

    The probe is the one with the best validation metric of those with the same training clips:
    it shows how well the features alone separate the classes.
    """
    baselines = [each for each in groups if each.config.method == "baseline"]
    sentences = []
    for each in groups:
        first = next((first for first in baselines if _comparable(each, first)), None)
        if each.config.reg == "none" or first is None:
            continue
        probes = [probe for probe in groups if probe.config.probe and _comparable(probe, first)]
        metric = METRICS[each.config.metric]
        sign = 1 if metric.higher_is_better else -1
        best = max(probes, key=lambda probe: sign * _mean(probe, "valid"), default=None)
        if best is None or not metric.improves(_mean(best), _mean(first)):
            continue
        low, value, high = (_mean(group) for group in (first, each, best))
        sentences.append(
            f"{each.label} goes {(value - low) / (high - low):.0%} of the way from {first.label} "
            f"({low:.3f}) to {best.label} ({high:.3f}) in {metric.title}."
        )
    return sentences


def _mean(each: Group, split: str = "test") -> float:
    return float(np.mean(each.samples(each.config.metric, split)))


def notes(groups: Sequence[Group]) -> list[str]:
    """Return the notes of the data, such as on missing clips, and on different test sets."""
    listed = [result.about["data"]["notes"] for each in groups for result in each.results]
    found = list(dict.fromkeys(note for several in listed for note in several))
    tested = {(each.config.dataset, each.test_set) for each in groups}
    if len(tested) > len({dataset for dataset, _ in tested}):
        found.append(
            "Not all of these runs were tested on the same clips, labels and classes; only numbers "
            "with the same test set are comparable."
        )
    return found


def alphas(groups: Sequence[Group]) -> list[str]:
    """Return a sentence per group whose alpha a preset sets, on its origin."""
    sentences = []
    for each in groups:
        config = each.config
        chosen = ALPHAS.get(config.preset, {}).get(config.reg)
        if config.alpha == chosen:
            sentences.append(
                f"alpha {config.alpha:g} of {each.label} was chosen on the validation split by "
                f"`train choose-alpha --reg {config.reg}`; it is not the paper's value."
            )
    return sentences
