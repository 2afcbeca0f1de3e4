"""Features of audio for a model that needs them, as `prep extract` and `prep align` compute them.

The model's card describes the extractors, with their settings and the hash of their weights, and
the alignment. An extractor that differs is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from os import PathLike, fspath
from typing import Any

import numpy as np

from featreg.datasets.audio.decode import Resampler
from featreg.datasets.base import FeatregError, UsageError
from featreg.extract.alignment.resample_frames import MODES, align_span, target_frames
from featreg.extract.extractors.registry import extractor_class, find_sources
from featreg.extract.load_extractor import FeatureExtractor, load_extractor

from .model_file import Card
from .recording import Recording, Signal

Weights = Mapping[str, str | PathLike[str]]

# Settings that may differ: the revision of the decoder, as for a model that needs only audio; and
# the name of a Hugging Face model, whose files are hashed.
_IGNORED = ("audio_revision", "model")


class FeatureInput:
    """Computes the aligned features that a model needs.

    Parameters
    ----------
    card
        Card of a model with features.
    weights
        Files of weights, by the name of a feature or of published weights, to use instead of
        those of this machine.
    device
        ``cpu`` or ``cuda``.

    Attributes
    ----------
    extractors
        The extractors, in the order of the features.

    Raises
    ------
    FeatregError
        If an extractor or its weights are not available, or differ from those that the model was
        trained with.
    UsageError
        If `weights` has a name that no feature of the model uses.
    """

    def __init__(self, card: Card, weights: Weights, device: str) -> None:
        if card.mode not in MODES:
            raise FeatregError(
                f"{card.name}: it does not contain how its features were aligned; it was trained "
                "by an earlier version of featreg: train it again with --fresh"
            )
        self._card, left = card, dict(weights)
        self.extractors = [
            _load(card, name, about, left, device) for name, about in card.features.items()
        ]
        if left:
            raise UsageError(
                f"--weights {next(iter(left))}: {card.name} has no such feature or weights; its "
                f"features are {', '.join(card.features)}"
            )
        self._mean = np.array(card.feature_mean, np.float32)
        self._std = np.array(card.feature_std, np.float32)

    @property
    def signals(self) -> tuple[tuple[int, Resampler], ...]:
        """Rate and resampler of the signals that the extractors need, each once."""
        pairs = ((each.sample_rate, each.settings["resampler"]) for each in self.extractors)
        return tuple(dict.fromkeys(pairs))

    def frames(self, recording: Recording) -> Signal:
        """Return the aligned and standardized features, of shape (frames, B_F).

        Raises
        ------
        ClipError
            If an extractor finds no frames, or one that is not finite.
        """
        card, duration_s = self._card, recording.duration_s
        span = range(target_frames(duration_s, card.resolution_s))
        aligned = []
        for extractor in self.extractors:
            rate = extractor.sample_rate
            signal = recording.signals[rate, extractor.settings["resampler"]]
            found, _ = extractor(signal, rate)
            aligned.append(
                align_span(
                    lambda first, last, found=found: found[first:last],  # type: ignore[misc]
                    len(found),
                    extractor.timing,
                    card.resolution_s,
                    duration_s,
                    card.mode,  # type: ignore[arg-type]
                    span,
                )
            )
        values = np.concatenate(aligned, axis=1)
        if len(self._mean):
            values -= self._mean
            values /= self._std
        return values


def _load(
    card: Card, name: str, about: Mapping[str, Any], weights: dict[str, Any], device: str
) -> FeatureExtractor:
    """Load an extractor, take its files from `weights`, and compare it with its description."""
    needs = f"{card.name}: {card.method} needs the feature {name}"
    settings, request = about.get("settings", {}), about.get("request", "")
    if settings.get("made") == "elsewhere":
        raise FeatregError(
            f"{needs}, whose arrays were computed by another program, so it cannot be computed "
            "for new audio; use `train eval` on aligned shards, or train with --reg"
        )
    try:
        extractor = _loaded(name, request, about, weights, device)
    except (FeatregError, ImportError) as error:
        reason = str(error).removeprefix("load_extractor: ").removeprefix("--features ")
        raise FeatregError(
            f"{needs}, which cannot be computed here: {reason}; give its file with --weights "
            f'{name}=FILE, in Python load_model(..., weights={{"{name}": FILE}})'
        ) from None
    _compare(needs, name, about, extractor)
    return extractor


def _loaded(
    name: str, request: str, about: Mapping[str, Any], weights: dict[str, Any], device: str
) -> FeatureExtractor:
    given = {key: weights.pop(key) for key in list(weights) if key.startswith(name)}
    scheme, _, place = request.partition("=")[2].partition(":")
    if scheme and name in given:
        module = f"{place.partition(':')[0]}:" if scheme == "hear" else ""
        request = f"{name}={scheme}:{module}{fspath(given.pop(name))}"
    ((_, source),) = find_sources([request or name], {}).items()
    settings = {"rate": about.get("sample_rate"), **about.get("settings", {})}
    keys = {field.name for field in fields(extractor_class(name, source).Config)}
    chosen = {key: settings[key] for key in keys & settings.keys() if settings[key] is not None}
    options = {key: settings[key] for key in ("precision", "resampler") if key in settings}
    found = load_extractor(
        request or name, weights=given or None, device=device, **options, **chosen
    )
    _ = found.weights_sha256  # a missing file is an error here
    return found


def _compare(needs: str, name: str, about: Mapping[str, Any], extractor: FeatureExtractor) -> None:
    """Raise an error if an extractor differs from that of the training data."""
    if about.get("weights_sha256") != extractor.weights_sha256:
        raise FeatregError(
            f"{needs} with the weights of sha256 {_short(about.get('weights_sha256'))}, found "
            f"{_short(extractor.weights_sha256)}; give the file that it was trained with by "
            f"--weights {name}=FILE, or extract, align and train again"
        )
    found = json.loads(json.dumps(extractor.settings, default=str))
    found.pop("model", None)
    expected = {k: v for k, v in about.get("settings", {}).items() if k not in _IGNORED}
    timing = extractor.timing
    grid = {"hop_s": timing.hop_s, "window_s": timing.window_s}
    grid |= {"first_center_s": timing.first_center_s, "dim": extractor.dim}
    found |= grid
    expected |= {key: about.get(key) for key in grid}
    for key in sorted({*expected, *found}):
        if expected.get(key) != found.get(key):
            raise FeatregError(
                f"{needs} with {key} {_short(expected.get(key))}, found {_short(found.get(key))}: "
                "the extractor has changed; use that of the training data, or extract, align and "
                "train again"
            )


def _short(value: object) -> str:
    text = str(value) if value not in (None, "") else "none"
    return text if len(text) <= 24 else f"{text[:16]}..."
