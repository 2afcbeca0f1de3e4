"""Folders of audio as tables of clips: the folder of a file is its class.

::

    DIR/dog/a.wav             class dog
    DIR/a.wav                 not labelled
    DIR/train/dog/a.wav       split train, class dog, if all folders in DIR are named as splits
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..audio.suffixes import AUDIO_SUFFIXES
from ..base import FeatregError
from ..console import counted
from .columns import SPLIT_NAMES
from .completeness import few
from .label_file import LabelTable


def read_folder(folder: Path) -> LabelTable:
    """The audio files below a folder, in alphabetical order.

    Hidden files and folders are skipped, and links to folders are not followed.

    Raises
    ------
    FeatregError
        If the folder cannot be read, or there are no audio files in it.
    """
    files = sorted(_files(folder))
    audio = [file for file in files if file.suffix.lower() in AUDIO_SUFFIXES]
    others = [str(file) for file in files if file.suffix.lower() not in AUDIO_SUFFIXES]
    if not audio:
        raise FeatregError(
            f"{folder}: no audio files in this folder or in the folders in it; "
            f"found {few(others) or 'no files'}"
        )
    above = {file.parts[0].lower() for file in audio if len(file.parts) > 1}
    in_splits = bool(above) and all(
        len(file.parts) > 1 and file.parts[0].lower() in SPLIT_NAMES for file in audio
    )
    rows = []
    for line, file in enumerate(audio, 1):
        split, folders = (file.parts[0], file.parts[1:-1]) if in_splits else ("", file.parts[:-1])
        rows.append((line, [str(file), split, folders[0] if folders else ""]))
    form = "folders are splits and classes" if in_splits else "folders are classes"
    if not any(cells[2] for _, cells in rows):
        form = "audio files"
    if others:
        form += f"; ignored {counted(len(others), 'other file')}: {few(others)}"
    return LabelTable(["path", "split", "labels"], rows, form)


def _files(folder: Path) -> Iterator[Path]:
    """Files below a folder, relative to it."""

    def refuse(error: OSError) -> None:
        raise FeatregError(f"{error.filename}: cannot be read ({error.strerror})") from None

    for here, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(here, name).relative_to(folder)
