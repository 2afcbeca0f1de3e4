"""Kind 13: `train predict` on unusual names and files, and classes with the names of columns."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from . import base_work
from .cases import RIGHT, TRACEBACK, WRONG, Case, Kit, Result
from .commands import Done, call, refused, spawn
from .labels import NAMES
from .signals import sweep, write
from .values import VARIANTS

_RATE = 16000
_LIMIT_S = 120.0
_CLASSES = (("file", "low"), ("low", "end_s"))


def cases(kit: Kit, base: Path) -> Iterator[Case]:
    """Unusual names, bad files among good ones, unusual samples, and names of classes."""
    for number, (key, name) in enumerate(NAMES.items()):
        for order, form in enumerate(("csv", "json", "table")):
            if (number + order) % kit.count(2, 30) == 0:
                yield Case(f"name-{key}-{form}", partial(_name, base, name, form), _LIMIT_S)
    for key in ("latin", "newline", "lead", "dash"):  # as an argument, which is bytes
        if not kit.quick or key == "latin":
            yield Case(f"argument-{key}", partial(_argument, base, NAMES[key]), _LIMIT_S)
    for number, (key, (change, subtype, must)) in enumerate(VARIANTS.items()):
        if number % kit.count(2, 30) == 0:
            case = partial(_value, base, change, subtype, must)
            yield Case(f"value-{key}", case, _LIMIT_S)
    if not kit.quick:
        for classes in _CLASSES:
            yield Case(f"classes-{'-'.join(classes)}", partial(_classes, classes), 300.0)


def _predict(base: Path, form: str, *files: object) -> Done:
    run = base / "runs" / "conreg"
    return call("train", "predict", "--run", run, "--format", form, "--work", base, "--", *files)


def _rows(text: str, form: str) -> dict[str, list[float]]:
    """Probabilities by file."""
    if form == "json":
        return {
            each["file"]: [each["tags"][name] for name in sorted(each["tags"])]
            for each in json.loads(text)
        }
    table = list(csv.reader(io.StringIO(text, newline="")))
    if not table or len(set(table[0])) != len(table[0]):
        raise ValueError(f"columns {table[:1]}")
    order = sorted(range(1, len(table[0])), key=lambda k: table[0][k])
    return {row[0]: [float(row[k]) for k in order] for row in table[1:]}


def _sound(path: Path) -> Path:
    return write(path, sweep(0.8, _RATE, 1, 3), _RATE, subtype="PCM_16", format="WAV")


def _judge(done: Done, form: str, good: list[Path], bad: Path) -> Result:
    """Every good file has the same probabilities, the bad one is named, the status is 1."""
    if "Traceback" in done.out + done.err:
        return Result(TRACEBACK, done.last)
    if form == "table":
        lines = [line for line in done.out.splitlines() if "low" in line]
        if len(lines) < len(good) and "\n" not in str(good):
            return Result(WRONG, f"{len(lines)} lines for {len(good)} files: {done.last}")
    else:
        try:
            rows = _rows(done.out, form)
        except (ValueError, IndexError) as error:
            return Result(WRONG, f"the {form} cannot be read: {error}")
        if len(rows) != len(good):
            return Result(WRONG, f"{len(rows)} files instead of {len(good)}: {done.last}")
        if len({tuple(row) for row in rows.values()}) != 1:
            return Result(WRONG, "equal files have other probabilities")
        names = {name.encode("utf-8", "surrogateescape") for name in rows}
        exact = {os.fsencode(path) for path in good}
        if names != exact and all(b"\xfc" not in name for name in exact):
            return Result(WRONG, f"the files are called {sorted(rows)}")
    if done.status != 1 or bad.name not in done.err:
        return Result(WRONG, f"status {done.status}, and {bad.name} is not named: {done.last}")
    return Result(RIGHT)


def _name(base: Path, name: str, form: str, folder: Path) -> Result:
    good = [_sound(folder / "a.wav"), _sound(folder / "z.wav")]
    odd = _sound(folder / "odd.wav").rename(folder / name)
    (folder / "bad.wav").write_bytes(b"no audio")
    files = [good[0], folder / "bad.wav", odd, good[1]]
    done = _predict(base, form, *files)
    return _judge(done, form, [*good, odd], folder / "bad.wav")


def _argument(base: Path, name: str, folder: Path) -> Result:
    """The same from a shell; the names are given as they lie in the folder."""
    good = _sound(folder / "a.wav")
    odd = _sound(folder / "odd.wav").rename(folder / name)
    bad = folder / "bad.wav"
    bad.write_bytes(b"no audio")
    words = ["predict", "--run", base / "runs" / "conreg", "--format", "csv", "--work", base, "--"]
    done = spawn("train", *words, *map(os.fsencode, (good, bad, odd)))
    return _judge(done, "csv", [good, odd], bad)


def _value(base: Path, change: object, subtype: str, must: str, folder: Path) -> Result:
    """Odd samples: scores in [0, 1] or a reason; the file beside it as ever."""
    good = _sound(folder / "a.wav")
    signal = change(sweep(0.7, _RATE, 1, 3))  # type: ignore[operator]
    odd = write(folder / "odd.wav", signal, _RATE, subtype=subtype)
    done = _predict(base, "csv", good, odd)
    if "Traceback" in done.out + done.err:
        return Result(TRACEBACK, done.last)
    rows = _rows(done.out, "csv")
    if str(good) not in rows:
        return Result(WRONG, f"the good file beside it is lost: {done.last}")
    if str(odd) in rows:
        if not all(0 <= value <= 1 for value in rows[str(odd)]):
            return Result(WRONG, f"probabilities {rows[str(odd)]}")
        if must == "refuse" and signal.any() and "odd.wav" not in done.err:
            return Result(WRONG, "accepted without a word, expected a refusal")
        return Result(RIGHT if done.status == 0 else WRONG, f"status {done.status}")
    if must == "accept":  # the score of what is clipped or scaled is the model's
        return Result(WRONG, f"refused: {done.err.strip()}")
    return refused(done, str(odd))


def _classes(classes: tuple[str, str], folder: Path) -> Result:
    """The columns of the output have unique names, or the dataset is rejected."""
    (folder / "made").mkdir()
    try:
        work = base_work.build(folder / "made", ("conreg",), classes)
    except RuntimeError as error:
        named = any(name in str(error) for name in classes)
        return Result("refused and named" if named else WRONG, str(error))
    path = _sound(folder / "a.wav")
    for more in ([], ["--hop", 0.5]):
        run = work / "runs" / "conreg"
        done = call("train", "predict", path, "--run", run, "--format", "csv", *more,
                    "--work", work)  # fmt: skip
        if done.status:
            return refused(done, *classes)
        header = done.out.splitlines()[0].split(",")
        if len(set(header)) != len(header):
            return Result(WRONG, f"columns {header}")
    shutil.rmtree(work)
    return Result(RIGHT)
