"""Kind 10: run folders whose files are damaged, and the commands that read them."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .base_work import copy, run_words
from .cases import REFUSED, RIGHT, TRACEBACK, WRONG, Case, Kit, Result
from .commands import call, refused

_FILES = ("config.json", "report.json", "metrics.csv", "predictions.csv", "embeddings.npz",
          "model.safetensors", "state.pt")  # fmt: skip
_LIMIT_S = 90.0
_ABSURD: tuple[Any, ...] = (None, "", "text", -1, 1e300, [], {}, [[]], True, {"a": {"b": None}})

Damage = Callable[[bytes, random.Random], bytes]


class Code:
    """Its pickle runs a command; readers must not execute it."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch ran-code",)


def flip(data: bytes, rng: random.Random) -> bytes:
    """Flip one bit."""
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _part(fraction: float) -> Damage:
    return lambda data, rng: data[: int(fraction * len(data))]


ANY_FILE: dict[str, Damage] = {
    "empty": lambda data, rng: b"",
    **{f"cut-{fraction}": _part(fraction) for fraction in (0.01, 0.3, 0.7, 0.98)},
    "last-byte": lambda data, rng: data[:-1],
    "zeros": lambda data, rng: bytes(len(data)),
    "noise": lambda data, rng: rng.randbytes(len(data)),
    "text": lambda data, rng: b"no such thing\n",
    "json-list": lambda data, rng: b"[]",
    "json-number": lambda data, rng: b"7",
    "json-null": lambda data, rng: b"null",
    "json-empty": lambda data, rng: b"{}",
    "latin-1": lambda data, rng: b"\xff\xfe" + data,
    "deep": lambda data, rng: b"[" * 100_000,
    "pickle": lambda data, rng: pickle.dumps(Code()),
    "another-file": lambda data, rng: b"PK\3\4" + data,
}


def _json(change: Callable[[Any, random.Random], None]) -> Damage:
    def damage(data: bytes, rng: random.Random) -> bytes:
        values = json.loads(data)
        change(values, rng)
        return json.dumps(values).encode()

    return damage


def _places(values: Any) -> list[tuple[Any, Any]]:
    """Every container in JSON values with every key of it."""
    if not isinstance(values, dict | list):
        return []
    keys = list(values) if isinstance(values, dict) else list(range(len(values)))
    return [(values, key) for key in keys] + [
        place for key in keys for place in _places(values[key])
    ]


def _without(values: Any, rng: random.Random) -> None:
    inside, key = rng.choice(_places(values))
    del inside[key]


def _absurd(values: Any, rng: random.Random) -> None:
    inside, key = rng.choice(_places(values))
    inside[key] = rng.choice(_ABSURD)


def _table(change: Callable[[list[list[str]]], list[list[str]]]) -> Damage:
    def damage(data: bytes, rng: random.Random) -> bytes:
        rows = change([line.split(",") for line in data.decode().splitlines()])
        return "".join(",".join(row) + "\n" for row in rows).encode()

    return damage


def _npz(change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(data: bytes, rng: random.Random) -> bytes:
        with np.load(io.BytesIO(data)) as file:
            arrays = dict(file)
        change(arrays)
        target = io.BytesIO()
        np.savez(target, **arrays)
        return target.getvalue()

    return damage


_OWN: dict[str, dict[str, Damage]] = {
    ".csv": {
        "header-alone": _table(lambda rows: rows[:1]),
        "no-header": _table(lambda rows: rows[1:]),
        "no-column": _table(lambda rows: [row[:-1] for row in rows]),
        "words": _table(lambda rows: [rows[0], *(["x"] * len(row) for row in rows[1:])]),
        "nan": _table(lambda rows: [rows[0], *([r[0], *["nan"] * (len(r) - 1)] for r in rows[1:])]),
        "ragged": _table(lambda rows: [rows[0], rows[1] * 2, *rows[2:]]),
        "twice": _table(lambda rows: rows + rows[1:]),
    },
    ".npz": {
        "no-array": _npz(lambda arrays: arrays.pop("embedding", None)),
        "objects": _npz(lambda arrays: arrays.update(embedding=np.array([Code()], object))),
        "shape": _npz(lambda arrays: arrays.update(embedding=np.zeros((1, 1)))),
        "nan": _npz(lambda arrays: arrays.update(embedding=arrays["embedding"] * np.nan)),
    },
    ".safetensors": {
        "huge-header": lambda data, rng: b"\xff" * 8 + data[8:],
        "no-header": lambda data, rng: bytes(8) + data[8:],
        "nan": lambda data, rng: data[:-64] + b"\0\0\xc0\x7f" * 16,
    },
}  # fmt: skip


def _damages(name: str, kit: Kit) -> Iterator[tuple[str, Damage]]:
    yield from ANY_FILE.items()
    yield from _OWN.get(Path(name).suffix, {}).items()
    for number in range(6):
        yield f"flip-{number}", flip
        if name.endswith(".json"):
            yield f"without-{number}", _json(_without)
            yield f"absurd-{number}", _json(_absurd)


def cases(kit: Kit, base: Path) -> Iterator[Case]:
    """Every file of a run, with every damage, and each command that may read it."""
    expected = _expected(base)
    number = 0
    for name in _FILES:
        damages = [*_damages(name, kit), ("gone", None), ("folder", None)]
        for turn, (key, damage) in enumerate(damages):
            # One reader checks a file for all commands: they take turns with what is damaged.
            commands = ("again",) if name == "state.pt" else ("eval", "compare", "again")
            for command in commands if damage is None else (commands[turn % len(commands)],):
                number += 1
                if not kit.quick or number % 12 == 0:
                    label = f"{name}-{key}-{command}"
                    rng = kit.random("run", name, key)
                    args = (base, expected, name, key, damage, command, rng)
                    yield Case(label, partial(_try, *args), _LIMIT_S)


def _expected(base: Path) -> dict[str, Any]:
    found = {}
    for name in ("plain", "conreg", "whole"):
        found[name] = json.loads((base / "runs" / name / "report.json").read_text())
    return found


def _try(
    base: Path,
    expected: dict[str, Any],
    name: str,
    key: str,
    damage: Damage | None,
    command: str,
    rng: random.Random,
    folder: Path,
) -> Result:
    work = copy(base, folder)
    run = "half" if name == "state.pt" else "conreg"
    path = work / "runs" / run / name
    data = path.read_bytes()
    if damage is not None:
        path.write_bytes(damage(data, rng))
    else:
        path.unlink()
        if key == "folder":
            path.mkdir()
    if damage is not None and path.read_bytes() == data:
        return Result(RIGHT)
    if command == "eval":
        result = _eval(work, run, expected, str(path.parent))
    elif command == "compare":
        result = _compare(base, work, run, expected)
    else:
        result = _again(work, run, expected, str(path.parent))
    if Path("ran-code").exists():
        return Result(WRONG, "the code in a pickle was run")
    return result


def _eval(work: Path, run: str, expected: dict[str, Any], path: str) -> Result:
    done = call("train", "eval", run, "--format", "json", "--workers", 0, "--work", work)
    if done.status:
        return refused(done, path, run)
    found = json.loads(done.out)["metrics"]
    same = found == expected[run]["test"]
    return Result(RIGHT if same else WRONG, "" if same else f"metrics {found}")


def _compare(base: Path, work: Path, run: str, expected: dict[str, Any]) -> Result:
    """The other runs must be usable in any case."""
    done = call("train", "compare", "--work", work)
    said = done.out + done.err
    if "Traceback" in said:
        return Result(TRACEBACK, done.last)
    figures = {name: f"{expected[name]['test']['pr_auc']:.3f}" for name in expected}
    if any(figures[name] not in done.out for name in ("plain", "whole")):
        return Result(WRONG, f"the other runs are not shown: {done.last}")
    if run in done.err or f"/{run}/" in said:
        return Result(REFUSED, done.err.strip())
    undamaged = _compare_undamaged(base, work)
    same = [line for line in done.out.splitlines() if "report:" not in line] == undamaged
    return Result(RIGHT if same else WRONG, "" if same else "a line is not as it was")


def _compare_undamaged(base: Path, work: Path) -> list[str]:
    shutil.rmtree(work)
    shutil.copytree(base, work)
    out = call("train", "compare", "--work", work).out
    return [line for line in out.splitlines() if "report:" not in line]


def _again(work: Path, run: str, expected: dict[str, Any], path: str) -> Result:
    done = call("train", *run_words(run, work))
    if done.status:
        return refused(done, path)
    found = json.loads((work / "runs" / run / "report.json").read_text())["test"]
    truth = expected["whole" if run == "half" else run]["test"]
    return Result(RIGHT if found == truth else WRONG, "" if found == truth else f"test {found}")
