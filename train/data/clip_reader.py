"""Audio and frames of clips, read from aligned shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from featreg.datasets.shards.reader import ShardReader

from .aligned_set import Clips

Array = npt.NDArray[Any]


class ClipReader:
    """Reader of the audio and frames of clips, usable in any thread and process.

    Shards are opened when they are first read; open shards are not pickled.

    Parameters
    ----------
    clips
        The clips.
    dims
        Names and dimensions of the features, concatenated in this order; may be empty.

    Attributes
    ----------
    dim
        Total dimensions of the features.
    """

    def __init__(self, clips: Clips, dims: Mapping[str, int]) -> None:
        self.clips, self.dim = clips, sum(dims.values())
        self._dims = {f"features/{name}": dim for name, dim in dims.items()}
        self._shards: dict[int, ShardReader] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}}

    def audio(self, clip: int, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return samples `start` to `stop` of a clip, in [-1, 1]; fewer if the clip is shorter."""
        first, last = self.clips.audio[clip]
        samples = np.empty(max(0, min(stop, int(last - first)) - start), np.float32)
        self.audio_into(clip, start, samples)
        return samples

    def frames(self, clip: int, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return frames `start` to `stop` of a clip, of shape (stop - start, dim)."""
        frames = np.empty((stop - start, self.dim), np.float32)
        self.frames_into(clip, start, frames)
        return frames

    def audio_into(self, clip: int, start: int, out: npt.NDArray[np.float32]) -> None:
        """Read samples of a clip, from `start` on, into all of `out`, of shape (samples,)."""
        self._shard(clip).read("audio", int(self.clips.audio[clip, 0]) + start, out)
        out /= np.float32(32767)

    def frames_into(self, clip: int, start: int, out: npt.NDArray[np.float32]) -> None:
        """Read frames of a clip, from `start` on, into all of `out`, of shape (frames, dim)."""
        first, column = int(self.clips.frames[clip, 0]) + start, 0
        for name, dim in self._dims.items():
            self._shard(clip).read(name, first, out[:, column : column + dim])
            column += dim

    def _shard(self, clip: int) -> ShardReader:
        shard = int(self.clips.shard[clip])
        found = self._shards.get(shard)
        if found is None:  # if another thread does the same, either reader can be kept
            found = ShardReader(self.clips.paths[shard], ("audio", *self._dims))
            self._shards[shard] = found
        return found

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        """Iterate over the clips, yielding all frames of each."""
        for clip, (first, last) in enumerate(self.clips.frames):
            yield self.frames(clip, 0, int(last - first))
