"""Index of the clips in the native shards of a feature.

Shards are numbered and never change. A clip whose file changed is written again, to a shard with a
higher number: if several shards contain a clip, the one with the highest number is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..base import FeatregError
from .hdf5 import DamagedError
from .native import Failure, NativeHeader, native_shard


def shard_name(number: int) -> str:
    """File name of the shard with this number."""
    return f"{number:05d}.h5"


def by_number(path: Path) -> tuple[int, str]:
    """Sort key of shards: the order of their numbers."""
    return len(path.stem), path.stem


def shard_paths(folder: Path) -> list[Path]:
    """The shards in a feature's folder or an aligned folder, in the order of their numbers."""
    return sorted(folder.glob("*.h5"), key=by_number)


@dataclass(frozen=True, slots=True)
class HeldClip:
    """Entry of a clip in a shard, with frames or with the reason why there are none.

    Attributes
    ----------
    path
        The shard.
    fingerprint
        Fingerprint of the audio, and of other inputs of the feature, when it was read.
    duration_s
        Decoded length in seconds; 0 if the clip failed.
    failure
        Why the clip has no frames; None if it has frames.
    """

    path: Path
    fingerprint: str
    duration_s: float
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """A readable shard: its header, the hash of its content, and its clips by id."""

    header: NativeHeader
    content_sha256: str
    clips: dict[str, HeldClip]


@dataclass(frozen=True, slots=True)
class NativeIndex:
    """The native shards of one feature.

    Attributes
    ----------
    folder
        Folder of the shards.
    shards
        Each readable shard, in the order of the numbers.
    damaged
        Shards that cannot be read, each with the error's message.
    """

    folder: Path
    shards: dict[Path, ShardSummary] = field(default_factory=dict)
    damaged: dict[Path, str] = field(default_factory=dict)

    def clips(
        self, matches: Callable[[NativeHeader], bool] = lambda header: True
    ) -> dict[str, HeldClip]:
        """Each clip by its id, from the last of the shards whose header `matches`."""
        found: dict[str, HeldClip] = {}
        for shard in self.shards.values():
            if matches(shard.header):
                found |= shard.clips
        return found


def read_native_index(folder: Path) -> NativeIndex:
    """Read the metadata of every shard in a feature's folder, without frames.

    Raises
    ------
    FeatregError
        If a shard has another layout or version, or its name is not a number.
    """
    index = NativeIndex(folder)
    for path in shard_paths(folder):
        try:
            with native_shard(path) as shard:
                clips = {
                    clip_id: HeldClip(path, shard.fingerprints[clip_id], seconds)
                    for clip_id, seconds in shard.durations.items()
                }
                for each in shard.failures:
                    clips[each.clip_id] = HeldClip(path, each.fingerprint, 0.0, each)
                index.shards[path] = ShardSummary(shard.header, shard.content_sha256, clips)
        except DamagedError as error:
            index.damaged[path] = str(error)
        if not path.stem.isdecimal():
            raise FeatregError(
                f"{path}: expected a name such as {shard_name(0)}; move this file elsewhere"
            )
    return index
