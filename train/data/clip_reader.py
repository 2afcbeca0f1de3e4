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
    """Reads audio and frames of clips, in any thread and any process.

    Shards are opened where they are first read; a pickle holds none of them.

    Parameters
    ----------
    clips
        The clips.
    dims
        Features and their dimensions; they lie side by side in this order. May be empty.

    Attributes
    ----------
    dim
        Dimensions of all features together.
    """

    def __init__(self, clips: Clips, dims: Mapping[str, int]) -> None:
        self.clips, self.dim = clips, sum(dims.values())
        self._dims = {f"features/{name}": dim for name, dim in dims.items()}
        self._shards: dict[int, ShardReader] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}}

    def audio(self, clip: int, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Samples from `start` to `stop` of a clip; fewer where it ends before. In [-1, 1]."""
        first, last = self.clips.audio[clip]
        samples = np.empty(max(0, min(stop, int(last - first)) - start), np.float32)
        self.audio_into(clip, start, samples)
        return samples

    def frames(self, clip: int, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Frames from `start` to `stop` of a clip; shape (stop - start, dim)."""
        frames = np.empty((stop - start, self.dim), np.float32)
        self.frames_into(clip, start, frames)
        return frames

    def audio_into(self, clip: int, start: int, out: npt.NDArray[np.float32]) -> None:
        """Samples of a clip from `start` on, as many as `out` has room for. In [-1, 1]."""
        self._shard(clip).read("audio", int(self.clips.audio[clip, 0]) + start, out)
        out /= np.float32(32767)

    def frames_into(self, clip: int, start: int, out: npt.NDArray[np.float32]) -> None:
        """Frames of a clip from `start` on, as many as `out`, (frames, dim), has room for."""
        first, column = int(self.clips.frames[clip, 0]) + start, 0
        for name, dim in self._dims.items():
            self._shard(clip).read(name, first, out[:, column : column + dim])
            column += dim

    def _shard(self, clip: int) -> ShardReader:
        shard = int(self.clips.shard[clip])
        found = self._shards.get(shard)
        if found is None:  # another thread may do the same; either reader will do
            found = ShardReader(self.clips.paths[shard], ("audio", *self._dims))
            self._shards[shard] = found
        return found

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        """All frames of each clip, clip after clip."""
        for clip, (first, last) in enumerate(self.clips.frames):
            yield self.frames(clip, 0, int(last - first))
