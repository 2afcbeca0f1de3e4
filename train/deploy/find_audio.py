"""The audio files to classify: files, those in folders, and paths from standard input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from featreg.datasets.audio.suffixes import AUDIO_SUFFIXES

STDIN = Path("-")
"""The path that stands for a list of paths from standard input."""


@dataclass(frozen=True, slots=True)
class AudioFile:
    """An audio file, and its name in an output folder."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A file without predictions, and the reason."""

    file: Path
    reason: str


def find_audio(paths: Iterable[Path], stdin: BinaryIO) -> Iterator[AudioFile | Failed]:
    """Yield the files at `paths`, and the audio files in folders, sorted by name.

    A file is named as it is called, and a file of a folder by its path in the folder.

    Parameters
    ----------
    paths
        Files and folders; `STDIN` stands for those that `stdin` lists.
    stdin
        Paths separated by line breaks, or by null bytes if there are any, as ``find -print0``
        writes them.
    """
    for path in paths:
        if path == STDIN:
            yield from _listed(stdin.read())
        elif _is_folder(path):
            yield from _inside(path)
        else:
            yield AudioFile(path, path.name)


def _listed(content: bytes) -> Iterator[AudioFile | Failed]:
    for line in content.split(b"\0") if b"\0" in content else content.splitlines():
        if not line.strip():
            continue
        path = Path(os.fsdecode(line))
        if _is_folder(path):
            yield from _inside(path)
        else:
            within = not path.is_absolute() and ".." not in path.parts
            yield AudioFile(path, str(path) if within else path.name)


def _inside(folder: Path) -> Iterator[AudioFile | Failed]:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
    for file in files:
        yield AudioFile(file, str(file.relative_to(folder)))
    if not files:
        names = ", ".join(sorted(suffix[1:] for suffix in AUDIO_SUFFIXES))
        yield Failed(folder, f"{folder} contains no audio file ({names})")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, for example; opening it reports the error
        return False
