"""Base classes of encoders and classifiers.

To add an architecture, add one file to this folder with a subclass of `Encoder` that has the
attributes below and whose keyword arguments all have defaults, and its name to
``registry.ENCODERS``. Its module that computes the spectrogram, of shape (batch, channels,
frequencies, frames), is called `front`; ``--mask`` masks its output. Decoder, fusion,
regularizers, training and export depend on `Encoder` only. An exported model accepts audio of any
length: use `sizes.at_least` where a computation depends on the length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """A network that maps audio to an embedding over time: E of the paper.

    Attributes
    ----------
    dim
        B_E, dimensions of the embedding.
    sample_rate
        Sample rate of the input, in Hz.
    samples
        Length of the training crops, in samples.
    frames
        T_E, number of embedding frames for an input of `samples` samples.
    """

    dim: int
    sample_rate: int
    samples: int
    frames: int

    @abstractmethod
    def forward(self, audio: Tensor) -> Tensor:
        """Return the embedding l, of shape (batch, T_E, dim).

        Parameters
        ----------
        audio
            Mono audio in [-1, 1] at `sample_rate`, of shape (batch, samples). Longer input
            gives more frames.
        """


class Output(NamedTuple):
    """The output of a classifier for a batch.

    Attributes
    ----------
    logits
        Shape (labelled clips, classes). A sigmoid (multi-label task) or a softmax (single-label
        task) maps them to probabilities.
    embedding
        The encoder's output l before any fusion, of shape (batch, T_E, B_E), to which the
        regularizers apply; without an encoder, the features.
    """

    logits: Tensor
    embedding: Tensor


class Tagger(nn.Module, ABC):
    """Base class of the classifiers, which map audio, features or both to logits.

    Attributes
    ----------
    needs_audio
        Whether `forward` uses the audio.
    needs_features
        Whether `forward` uses the features, in training and at inference. False for models
        trained with a regularizer: their inference is audio-only.
    """

    needs_audio: ClassVar[bool] = True
    needs_features: ClassVar[bool]

    @abstractmethod
    def forward(
        self,
        audio: Tensor | None,
        features: Tensor | None = None,
        labelled: int | None = None,
    ) -> Output:
        """Return logits and embedding of a batch.

        Parameters
        ----------
        audio
            Shape (batch, samples); may be None if `needs_audio` is False.
        features
            Shape (batch, T_F, B_F), covering the same time; may be None if
            `needs_features` is False.
        labelled
            Number of clips, from the start of the batch, for which to compute logits; None for
            all. The other clips have an embedding only, so that they change neither the decoder
            nor the statistics of its batch normalization.

        Raises
        ------
        ValueError
            If a required input is None.
        """


def required(value: Tensor | None, name: str) -> Tensor:
    """Return `value`, a required input of a classifier.

    Raises
    ------
    ValueError
        If `value` is None.
    """
    if value is None:
        raise ValueError(f"this model requires {name}, got None")
    return value
