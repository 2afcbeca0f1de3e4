"""Whether what a command will write finds room on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featreg.datasets.base import FeatregError
from featreg.datasets.console import warn
from featreg.datasets.shards.disk_space import free_bytes

# Of the free bytes, those that a command may take without a word.
_EASY = 0.9


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes that a folder will take on top of what it has; `str` is for people.

    Attributes
    ----------
    folder
        Where they are written.
    likely
        As far as can be told.
    least
        What it will not come out under, however well the rows compress.
    free
        Bytes that are free on that disk.
    """

    folder: Path
    likely: int
    least: int
    free: int

    @classmethod
    def on_disk(cls, folder: Path, likely: int, least: int) -> Space:
        """With the bytes that are free now."""
        return cls(folder, likely, least, free_bytes(folder))

    def __str__(self) -> str:
        if self.least > self.free:
            verdict = "does not suffice"
        elif self.likely > _EASY * self.free:
            verdict = "may not suffice"
        else:
            verdict = "suffices"
        return f"disk: about {in_words(self.likely)} needed, {in_words(self.free)} free: {verdict}"

    def check(self) -> None:
        """Refuse to start what cannot end.

        Raises
        ------
        FeatregError
            If the disk lacks the bytes for certain; where it is close there is a warning.
        """
        words = f"{self.folder}: {self}"
        if self.least > self.free:
            raise FeatregError(f"{words}; free some, or work on another disk (--work)")
        if self.likely > _EASY * self.free:
            warn(words)


def in_words(count: float) -> str:
    """Bytes for people: ``12.3 MB``."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
