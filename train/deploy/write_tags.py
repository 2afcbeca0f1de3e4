"""Formats of predictions: CSV, JSON, a table, and label files of Audacity."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from featreg.datasets.console import printable

from .tag_files import Tagged

FORMATS = ("table", "csv", "json", "audacity")


def best(one: Tagged, classes: Sequence[str], top: int | None) -> list[tuple[str, float]]:
    """Classes and probabilities, the most probable first; `top` of them, or all."""
    order = np.argsort(-one.probability, kind="stable")[:top]
    return [(classes[k], round(float(one.probability[k]), 6)) for k in order]


def csv_line(values: Sequence[Any]) -> str:
    """One line of CSV, without its end; file names with line breaks are quoted."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(values)  # it quotes these two characters
    return line.getvalue().removesuffix("\r\n")


def csv_columns(classes: Sequence[str], over_time: bool) -> list[str]:
    """Columns of the CSV: the file, start and end, and one per class.

    No two columns have the same name: a class called ``file`` is in ``class_file``.
    """
    columns = ["file", *(("start_s", "end_s") if over_time else ())]
    for name in classes:
        while name in columns:
            name = f"class_{name}"
        columns.append(name)
    return columns


def csv_row(one: Tagged, over_time: bool) -> str:
    """Line of the CSV for one prediction."""
    times = (f"{one.start_s:.3f}", f"{one.end_s:.3f}") if over_time else ()
    return csv_line([one.file, *times, *(f"{p:.6f}" for p in one.probability)])


def to_json(
    tagged: Sequence[Tagged], classes: Sequence[str], top: int | None, over_time: bool
) -> str:
    """All predictions as a JSON list of objects ``file``, ``start_s``, ``end_s``, ``tags``."""
    found: list[dict[str, Any]] = []
    for one in tagged:
        found.append({"file": str(one.file), "tags": dict(best(one, classes, top))})
        if over_time:
            found[-1].update(start_s=one.start_s, end_s=one.end_s)
    return json.dumps(found, indent=2, ensure_ascii=False)


def to_table(tagged: Sequence[Tagged], classes: Sequence[str], top: int, over_time: bool) -> Any:
    """A data frame with one line per prediction: file, start and end, most probable classes."""
    import pandas as pd

    rows: list[dict[str, str]] = []
    for one in tagged:
        row = {"file": printable(str(one.file))}
        if over_time:
            row.update({"from": f"{one.start_s:.2f} s", "to": f"{one.end_s:.2f} s"})
        row["tags"] = ", ".join(f"{name} {p:.2f}" for name, p in best(one, classes, top))
        rows.append(row)
    return pd.DataFrame(rows)


def to_audacity(tagged: Sequence[Tagged], classes: Sequence[str], least: float) -> str:
    r"""The label track of one file: lines ``start \t end \t class probability``.

    A label is one or more consecutive chunks in which a class has at least the probability
    `least`; its probability is the highest of them. The labels are in order of their start.
    """
    labels = [
        (start_s, end_s, name, peak)
        for k, name in enumerate(classes)
        for start_s, end_s, peak in _stretches(tagged, k, least)
    ]
    return "".join(
        f"{start_s:.6f}\t{end_s:.6f}\t{' '.join(name.split())} {peak:.2f}\n"
        for start_s, end_s, name, peak in sorted(labels, key=lambda label: label[:2])
    )


def _stretches(
    tagged: Sequence[Tagged], k: int, least: float
) -> Iterator[tuple[float, float, float]]:
    """Start, end and highest probability of consecutive chunks with class k."""
    current: tuple[float, float, float] | None = None
    for one in tagged:
        p = float(one.probability[k])
        if p < least or (current is not None and one.start_s > current[1]):  # or with a gap
            if current is not None:
                yield current
            current = None
        if p >= least:
            start_s, _, peak = current or (one.start_s, 0.0, 0.0)
            current = (start_s, one.end_s, max(peak, p))
    if current is not None:
        yield current
