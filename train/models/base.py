"""What an encoder and a tagger are.

Another architecture is one file in this folder: a subclass of `Encoder` with the three
attributes below, built from keyword arguments that all have defaults, and its name in
``registry.ENCODERS``. Decoder, fusion, regularizers, training and export take it from
there; nothing of them knows the harmonic CNN. An exported model takes audio of any length:
where the length decides something, `sizes.at_least` keeps the decision open.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Audio in, an embedding over time out: E of the paper.

    Attributes
    ----------
    dim
        B_E, values per frame of the embedding.
    sample_rate
        Rate of the audio it hears, in Hz.
    samples
        Input length it is trained on.
    frames
        T_E, frames of the embedding of `samples` samples.
    """

    dim: int
    sample_rate: int
    samples: int
    frames: int

    @abstractmethod
    def forward(self, audio: Tensor) -> Tensor:
        """Embedding l of shape (batch, T_E, dim).

        Parameters
        ----------
        audio
            Shape (batch, samples), mono in [-1, 1] at `sample_rate`. Longer input
            gives more frames.
        """


class Output(NamedTuple):
    """What a tagger says about a batch.

    Attributes
    ----------
    logits
        Shape (batch, classes): a sigmoid makes them probabilities in a multi-label
        task, a softmax in a single-label one.
    embedding
        l of shape (batch, T_E, B_E), as the encoder made it and before any fusion: what
        the regularizers shape. Where there is no encoder, the features themselves.
    """

    logits: Tensor
    embedding: Tensor


class Tagger(nn.Module, ABC):
    """A whole classifier: whatever of audio and features it needs in, logits out.

    Attributes
    ----------
    needs_audio
        Whether `forward` looks at the audio.
    needs_features
        Whether `forward` looks at the features, in training and in use alike. A model
        that is trained with a regularizer does not: it leaves home on audio alone.
    """

    needs_audio: ClassVar[bool] = True
    needs_features: ClassVar[bool]

    @abstractmethod
    def forward(self, audio: Tensor | None, features: Tensor | None = None) -> Output:
        """Logits of shape (batch, classes), and the embedding.

        Parameters
        ----------
        audio
            Shape (batch, samples); None where `needs_audio` is False.
        features
            Shape (batch, T_F, B_F), covering the same time; None where
            `needs_features` is False.

        Raises
        ------
        ValueError
            If what it needs is None.
        """


def required(value: Tensor | None, what: str) -> Tensor:
    """`value`, which a tagger needs.

    Raises
    ------
    ValueError
        If it is None.
    """
    if value is None:
        raise ValueError(f"this model needs {what}, and none was given")
    return value
