"""Audio files to tags: which files, and how the tags are written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featreg.datasets.audio.pcm16 import to_pcm16
from featreg.datasets.base import Clip, ClipError, FeatregError
from featreg.datasets.console import warn
from featreg.extract.pipeline.decoder_pool import decode_apart

from .classifier import Classifier

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        "aac aif aifc aiff au caf flac m4a mka mp3 mp4 oga ogg opus rf64 w64 wav webm wma".split()  # noqa: SIM905
    )
)
"""What a folder is searched for; a file that is named is tried whatever it is called."""

FORMATS = ("table", "csv", "json")


@dataclass(frozen=True, slots=True, eq=False)
class Tagged:
    """Predictions of a file, or of a stretch of it.

    Attributes
    ----------
    file
        Where it lies.
    probability
        Shape (classes,), in [0, 1].
    start_s, end_s
        The stretch, in seconds; None for the whole file.
    """

    file: Path
    probability: npt.NDArray[np.float32]
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that gave no predictions, and why."""

    file: Path
    reason: str


def find_audio(paths: Iterable[Path]) -> Iterator[Path | Failed]:
    """The files at `paths`; a folder stands for all audio files in it, in order of name."""
    for path in paths:
        if not _is_folder(path):
            yield path
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        yield from inside
        if not inside:
            names = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
            yield Failed(path, f"{path} holds no audio file ({names})")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long, for example: whoever opens it says so
        return False


def tag(model: Classifier, file: Path, hop_s: float | None) -> list[Tagged] | Failed:
    """Predictions of a file: one for all of it, or one every `hop_s` seconds.

    Whatever goes wrong with a file is its failure alone. A silent one is named in the log.
    """
    nothing = np.empty(0, np.uint8)
    try:
        signal, rate = decode_apart(Clip(str(file), file, "test", nothing, nothing))
        if not to_pcm16(signal).any():
            warn(f"{file}: all samples are zero; the model's output is that of silence")
        if hop_s is None:
            return [Tagged(file, model.probabilities(signal, rate))]
        return [
            Tagged(file, probability, float(start), float(end))
            for start, end, probability in zip(
                *model.predict_over_time(signal, rate, hop_s), strict=True
            )
        ]
    except ClipError as error:
        return Failed(file, error.reason)
    except FeatregError as error:
        return Failed(file, f"{file}: {error}")
    except Exception as error:  # one file must not lose the results of the others
        return Failed(file, f"{file}: {type(error).__name__}: {error}")


def best(one: Tagged, classes: Sequence[str], top: int | None) -> list[tuple[str, float]]:
    """Classes and probabilities, the most probable first; `top` of them, or all."""
    order = np.argsort(-one.probability, kind="stable")[:top]
    return [(classes[k], round(float(one.probability[k]), 6)) for k in order]


def csv_line(values: Sequence[Any]) -> str:
    """One line of CSV, without its end; a line break in a file name is in quotes."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(values)  # it quotes these two characters
    return line.getvalue().removesuffix("\r\n")


def csv_header(classes: Sequence[str], over_time: bool) -> str:
    """First line of the CSV: the file, its stretch, and a column for each class.

    No two columns have the same name: a class called ``file`` is in ``class_file``.
    """
    columns = ["file", *(("start_s", "end_s") if over_time else ())]
    for name in classes:
        while name in columns:
            name = f"class_{name}"
        columns.append(name)
    return csv_line(columns)


def csv_row(one: Tagged) -> str:
    """A line of the CSV."""
    stretch = () if one.start_s is None else (f"{one.start_s:.3f}", f"{one.end_s:.3f}")
    return csv_line([one.file, *stretch, *(f"{p:.6f}" for p in one.probability)])


def to_json(tagged: Sequence[Tagged], classes: Sequence[str], top: int | None) -> str:
    """All predictions as a JSON list of objects ``file``, ``start_s``, ``end_s``, ``tags``."""
    found: list[dict[str, Any]] = []
    for one in tagged:
        found.append({"file": str(one.file), "tags": dict(best(one, classes, top))})
        if one.start_s is not None:
            found[-1].update(start_s=one.start_s, end_s=one.end_s)
    return json.dumps(found, indent=2, ensure_ascii=False)


def to_table(tagged: Sequence[Tagged], classes: Sequence[str], top: int) -> Any:
    """A row for each prediction, as a data frame: its file, its stretch, its best tags."""
    import pandas as pd

    rows: list[dict[str, str]] = []
    for one in tagged:
        row = {"file": str(one.file)}
        if one.start_s is not None:
            row.update({"from": f"{one.start_s:.2f} s", "to": f"{one.end_s:.2f} s"})
        row["tags"] = ", ".join(f"{name} {p:.2f}" for name, p in best(one, classes, top))
        rows.append(row)
    return pd.DataFrame(rows)
