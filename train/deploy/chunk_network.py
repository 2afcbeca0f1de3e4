"""The network of a trained model, applied to chunks of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featreg.datasets.audio.pcm16 import from_pcm16
from featreg.datasets.base import FeatregError

from ..data.crops import repeated
from ..models.base import Output, Tagger
from ..training.memory import enough_memory
from .fuse_batch_norm import fuse_batch_norm
from .model_file import Card

Array = npt.NDArray[np.float32]

CHUNKS_PER_BATCH = 16
"""Number of chunks that the network processes at once."""


class Input(NamedTuple):
    """Input of the network for one clip.

    Attributes
    ----------
    audio
        Shape (samples,), int16, at the rate of the model.
    frames
        Aligned features of shape (frames, B_F); None if the model needs only audio.
    """

    audio: npt.NDArray[np.int16]
    frames: Array | None


class ChunkNetwork:
    """Applies a classifier to chunks of a clip, cut as those of the aligned shards.

    Parameters
    ----------
    tagger
        The classifier in evaluation mode.
    card
        Its card.
    device
        ``cpu`` or ``cuda``.
    """

    def __init__(self, tagger: Tagger, card: Card, device: str) -> None:
        self._card, self._device = card, device
        with self.enough_memory():
            self._tagger = fuse_batch_norm(tagger, self._example(tagger)).to(device)

    def _example(self, tagger: Tagger) -> tuple[Tensor | None, Tensor | None]:
        """A chunk of noise, and features that vary."""
        card, rng = self._card, np.random.default_rng(0)
        audio = 0.1 * rng.standard_normal((1, card.samples), np.float32)
        frames = rng.standard_normal((1, self._frames_per_chunk, card.feature_dim), np.float32)
        return (
            torch.from_numpy(audio) if tagger.needs_audio else None,
            torch.from_numpy(frames) if tagger.needs_features else None,
        )

    @property
    def _frames_per_chunk(self) -> int:
        return max(1, self._card.samples // self._card.frame_samples)

    def outputs(self, clip: Input, starts: Sequence[int]) -> Iterator[Output]:
        """Yield logits and embeddings of the chunks at `starts` (samples) in batches, on the CPU.

        Raises
        ------
        FeatregError
            If they are not finite, or memory is insufficient.
        """
        with self.enough_memory():
            for first in range(0, len(starts), CHUNKS_PER_BATCH):
                yield self.run(*self._batch(clip, starts[first : first + CHUNKS_PER_BATCH]))

    @torch.inference_mode()
    def run(self, audio: Tensor | None, frames: Tensor | None) -> Output:
        """Return logits and embeddings of audio (n, samples) and features (n, T_F, B_F).

        Raises
        ------
        FeatregError
            If they are not finite.
        """
        inputs = (None if each is None else each.to(self._device) for each in (audio, frames))
        output = Output(*(part.float().cpu() for part in self._tagger(*inputs)))
        if not all(torch.isfinite(part).all() for part in output):
            raise FeatregError(
                f"{self._card.name}: the network's output is not finite; its weights are damaged, "
                "or its training diverged: use another run"
            )
        return output

    def enough_memory(self) -> AbstractContextManager[None]:
        """Raise a `FeatregError` if the block runs out of memory."""
        return enough_memory(self._card.name, "free some of it, or use another --device")

    def _batch(self, clip: Input, starts: Sequence[int]) -> tuple[Tensor | None, Tensor | None]:
        """Audio of shape (chunks, samples) and features (chunks, frames, B_F), as needed."""
        audio = frames = None
        if self._tagger.needs_audio:
            audio = torch.from_numpy(np.stack([self._audio(clip.audio, k) for k in starts]))
        if clip.frames is not None:
            chosen = np.stack([self._frames(clip, clip.frames, start) for start in starts])
            frames = torch.from_numpy(chosen)
        return audio, frames

    def _audio(self, audio: npt.NDArray[np.int16], start: int) -> Array:
        """The audio of the chunk at `start`; shorter audio is repeated."""
        samples, row = self._card.samples, self._card.frame_samples
        if len(audio) >= samples:
            return from_pcm16(audio[start : start + samples])
        return repeated(from_pcm16(audio), samples, -(-len(audio) // row) * row)

    def _frames(self, clip: Input, frames: Array, start: int) -> Array:
        """The frames of the chunk at `start`, as `Cutter.cut` reads them."""
        samples, hop = self._card.samples, self._card.frame_samples
        wanted = np.arange(self._frames_per_chunk)
        if len(clip.audio) < samples:
            return frames[wanted % len(frames)]
        return frames[np.minimum(round(start / hop) + wanted, len(frames) - 1)]
