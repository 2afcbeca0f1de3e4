"""Label files of empty audio files, which are enough where nothing is decoded."""

from __future__ import annotations

from pathlib import Path

from featreg.datasets.base import Dataset


def write(folder: Path, text: str, audio: str = "abcd") -> Path:
    """A label file with this text, beside empty files a.wav, b.wav and so on."""
    for name in audio:
        (folder / f"{name}.wav").touch()
    path = folder / "mine.csv"
    path.write_text(text)
    return path


def splits(dataset: Dataset) -> dict[str, str]:
    """Split of every clip."""
    return {clip.clip_id: clip.split for clip in dataset.clips}


def many(folder: Path, columns: str, row: str, count: int = 400) -> tuple[Path, list[str]]:
    """A label file of `count` clips, ten per artist, and its rows."""
    rows = [row.format(i=i, artist=i // 10, label="abcdefghij"[i % 7]) for i in range(count)]
    for i in range(count):
        (folder / f"{i}.wav").touch()
    return write(folder, "\n".join([columns, *rows])), rows
