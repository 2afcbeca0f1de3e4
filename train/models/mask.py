"""Masking of the spectrogram in training: one band of frequencies and one interval of time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from featreg.datasets.base import UsageError

from .base import Encoder


def mask_spectrogram(encoder: Encoder, widest: float) -> None:
    """Mask the output of an encoder's front end in training mode, see `masked`.

    The masks are drawn from torch's global generator. In evaluation mode, nothing is masked.

    Parameters
    ----------
    encoder
        The encoder, whose attribute `front` is the module that computes the spectrogram.
    widest
        Maximum width of a mask as a fraction of all frequencies or frames, in [0, 1].

    Raises
    ------
    UsageError
        If the encoder has no attribute `front`.
    """
    front = getattr(encoder, "front", None)
    if front is None:
        raise UsageError(
            f"--mask {widest:g}: {type(encoder).__name__} has no attribute `front`, the module "
            "that computes its spectrogram; use --mask 0"
        )

    def hook(module: Any, _: object, spectrogram: Tensor) -> Tensor:
        return masked(spectrogram, widest) if module.training else spectrogram

    front.register_forward_hook(hook)


def masked(spectrogram: Tensor, widest: float) -> Tensor:
    """Set a random band of frequencies and a random interval of time of each clip to 0.

    0 is the mean of a spectrogram that batch normalization has normalized. The width of a mask
    is a uniformly distributed whole number from 0 to `widest` times the number of frequencies or
    frames, and so is its place. This is SpecAugment without time warping, with one mask of each
    kind. (D. S. Park et al., "SpecAugment: A simple data augmentation method for automatic speech
    recognition", Interspeech 2019.)

    Parameters
    ----------
    spectrogram
        Shape (batch, channels, frequencies, frames).
    widest
        Maximum width of a mask as a fraction, in [0, 1].
    """
    batch, _, *sizes = spectrogram.shape
    keep = torch.ones((), device=spectrogram.device)
    for axis, size in enumerate(sizes, start=2):
        draw, place = torch.rand(2, batch, 1, device=spectrogram.device)
        width = (draw * (int(widest * size) + 1)).floor()
        first = (place * (size - width + 1)).floor()
        index = torch.arange(size, device=spectrogram.device)
        inside = (index >= first) & (index < first + width)
        shape = [batch, 1, 1, 1]
        shape[axis] = size
        keep = keep * (~inside).view(shape)
    return spectrogram * keep
