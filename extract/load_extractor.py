"""Extractors as functions that return the embeddings of audio and their times.

::

    import featreg

    openl3 = featreg.load_extractor("openl3", hop=0.5)
    embeddings, times = openl3(samples, 44100)
    embeddings, times = openl3("song.mp3")
    for embeddings, times in openl3(["a.wav", "b.wav"]):
        ...
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, get_args, overload

import numpy as np
import numpy.typing as npt

from featreg.datasets.audio.decode import RESAMPLERS, Resampler, resample
from featreg.datasets.audio.file_or_array import FileOrArray, mono_signal
from featreg.datasets.base import ClipError, UsageError

from .extractors.base import Array, Extractor, Precision
from .extractors.batching import Batcher
from .extractors.custom import check_complete
from .extractors.registry import (
    extractor_class,
    find_sources,
    known_features,
    make_config,
    make_spec,
)
from .weights.cache import parse_overrides
from .weights.registry import WEIGHTS

Embeddings = tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]


def load_extractor(
    name: str,
    *,
    weights: str | PathLike[str] | Mapping[str, str | PathLike[str]] | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    resampler: Resampler = "soxr_hq",
    **settings: object,
) -> FeatureExtractor:
    """Load a pre-trained feature extractor.

    It computes the values that ``prep extract`` stores for the same audio and settings. Trained
    weights are downloaded on first use, verified and cached.

    Parameters
    ----------
    name
        ``"vggish"``, ``"openl3"``, ``"musicnn"`` or another built-in feature; ``"MODULE:CLASS"``
        for an extractor class of your own, ``"NAME=SCHEME:SOURCE"`` for a model, such as
        ``"birds=onnx:model.onnx"``.
    weights
        Weights file to use instead of the published one; a mapping ``{name: file}`` for an
        extractor that needs several.
    device
        Device of the network, such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    precision
        ``"float32"``, or ``"bfloat16"`` for the network's matrix products.
    resampler
        Algorithm for sample-rate conversion: ``"soxr_hq"``, ``"soxr_vhq"`` or ``"kaiser_best"``.
    **settings
        Settings of the extractor, as in ``prep extract --set NAME.KEY=VALUE``.

    Raises
    ------
    UsageError
        If the name, a setting, a value, a weights file or the device is invalid; the message
        lists the valid ones.
    FeatregError
        If the weights cannot be downloaded; the message states where to put them by hand.
    """
    _check_choice("precision", precision, get_args(Precision))
    _check_choice("resampler", resampler, RESAMPLERS)
    _check_device(device)
    try:
        feature, source = _find(name)
        values = {key: str(value) for key, value in settings.items()}
        config = make_config(feature, values, source=source)
        files = _weight_files(extractor_class(feature, source).weight_names(config), weights)
        extractor = make_spec(feature, source, config, files, device, precision).extractor()
        check_complete(name, extractor)
    except UsageError as error:  # the messages contain the options of `prep extract`
        message = str(error)
        for option in ("--features ", "--set ", "--weights "):
            message = message.removeprefix(option)
        raise UsageError(f"load_extractor: {message}") from None
    return FeatureExtractor(extractor, resampler)


def _check_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(
            f"load_extractor: {argument}={value!r}: expected one of {', '.join(choices)}"
        )


def _check_device(device: str) -> None:
    if device == "cpu":  # do not import torch for extractors without a network
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"load_extractor: device={device!r} cannot be used: {reason}") from None


def _find(name: str) -> tuple[str, str]:
    """Name and source of a feature; see `extractor_class`."""
    if ":" not in name and "=" not in name and name not in (known := known_features()):
        close = difflib.get_close_matches(name.lower(), known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(
            f"{name!r}: no such feature; expected one of {', '.join(known)}, MODULE:CLASS for a "
            f"class of your own, or NAME=SCHEME:SOURCE for a model{hint}"
        )
    ((feature, source),) = find_sources([name], {}).items()
    return feature, source


def _weight_files(
    needed: Sequence[str], weights: str | PathLike[str] | Mapping[str, str | PathLike[str]] | None
) -> dict[str, Path]:
    """The files given as `weights`, by name."""
    if weights is None:
        return {}
    names = f"expected weights for {', '.join(needed)}" if needed else "this extractor has none"
    if not isinstance(weights, Mapping):
        if len(needed) != 1:
            hint = "; pass a mapping {name: file}" if needed else ""
            raise UsageError(f"weights={fspath(weights)!r}: {names}{hint}")
        weights = {needed[0]: weights}
    families = {WEIGHTS[name].family for name in needed}
    if unused := [name for name in weights if name not in families.union(needed)]:
        raise UsageError(f"weights for {unused[0]}: {names}")
    return parse_overrides([f"{name}={fspath(file)}" for name, file in weights.items()])


class FeatureExtractor:
    """A loaded extractor, returned by `load_extractor`; call it with audio.

    Attributes
    ----------
    name
        Name of the feature.
    dim
        Number of dimensions of an embedding.
    hop_s
        Seconds between embeddings.
    timing
        Time grid of the embeddings: hop, window and first center, in seconds.
    sample_rate
        Sample rate of the extractor in Hz, to which audio is resampled.
    settings
        All settings that affect the values.
    """

    def __init__(self, extractor: Extractor, resampler: Resampler) -> None:
        self._extractor, self._resampler = extractor, resampler
        self.name = extractor.name
        self.dim = extractor.dim
        self.timing = extractor.timing
        self.hop_s = extractor.timing.hop_s
        self.sample_rate = extractor.sample_rate
        self.settings: dict[str, Any] = {**extractor.settings, "resampler": resampler}

    def __repr__(self) -> str:
        return (
            f"<FeatureExtractor {self.name}: {self.dim} dimensions, hop {self.hop_s:g} s, "
            f"{self.sample_rate} Hz, on {self._extractor.device}>"
        )

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights, or of the hashes of several files; empty without weights."""
        return self._extractor.weights_sha256

    @overload
    def __call__(self, audio: list[Any], sample_rate: int | None = None) -> list[Embeddings]: ...

    @overload
    def __call__(self, audio: FileOrArray, sample_rate: int | None = None) -> Embeddings: ...

    def __call__(
        self, audio: FileOrArray | list[Any], sample_rate: int | None = None
    ) -> Embeddings | list[Embeddings]:
        """Compute the embeddings of one clip, or of each clip in a list.

        Parameters
        ----------
        audio
            Path of an audio file; array of shape (samples,) or (samples, channels), floats
            nominally in [-1, 1] or int16 or int32; or a list of these. Channels are averaged and
            the result is resampled to the extractor's rate. The clips of a list are processed in
            common batches. Silent audio is accepted.
        sample_rate
            Sample rate of the arrays in Hz; ignored for files.

        Returns
        -------
        embeddings
            Shape (frames, dim), float32.
        times
            Shape (frames,), float64: centers of the frames in seconds.

        For a list, a list of such pairs is returned.

        Raises
        ------
        UsageError
            If an array has no sample rate, an invalid shape or type, or no samples.
        ClipError
            If a file cannot be decoded, or the audio has no embeddings.
        """
        if isinstance(audio, list):
            return self._compute(audio, sample_rate)
        return self._compute([audio], sample_rate)[0]

    def _compute(self, clips: Sequence[Any], sample_rate: int | None) -> list[Embeddings]:
        where = [f"item {k} of the list: " if len(clips) > 1 else "" for k in range(len(clips))]
        outcomes: list[Array | ClipError] = []
        batcher = Batcher(self._extractor, lambda _, outcome: outcomes.append(outcome))
        for k, audio in enumerate(clips):
            try:
                signal, rate = mono_signal(audio, sample_rate)
                signal = resample(signal, rate, self.sample_rate, self._resampler)
                batcher.push(str(k), signal)
            except UsageError as error:
                raise UsageError(f"{where[k]}{error}") from None
            except ClipError as error:
                raise ClipError(error.stage, f"{where[k]}{error.reason}") from error
        batcher.flush()
        found: list[Embeddings] = []
        for prefix, outcome in zip(where, outcomes, strict=True):
            if isinstance(outcome, ClipError):
                raise ClipError(outcome.stage, f"{prefix}{outcome.reason}")
            found.append(self._decoded(outcome))
        return found

    def _decoded(self, stored: Array | ClipError) -> Embeddings:
        """Values and times of quantized frames."""
        if isinstance(stored, ClipError):
            raise stored
        values = self._extractor.quantization.values(stored)
        return values, self._extractor.timing.centers(len(values))
