"""Kind 11: shards with a flipped bit or truncated, and the commands that read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .base_work import FEATURE, copy, extract, run_words
from .cases import RIGHT, WRONG, Case, Kit, Result
from .commands import Done, call, contents, refused

_LIMIT_S = 90.0


def cases(kit: Kit, base: Path) -> Iterator[Case]:
    """Positions across native and aligned shards."""
    shards = {
        "audio": base / "list/native/audio",
        FEATURE: base / f"list/native/{FEATURE}",
        "aligned": next(iter(sorted((base / "list/aligned").iterdir()))),
    }
    commands = {
        "audio": ("verify", "align", "extract"),
        FEATURE: ("verify", "align", "extract"),
        "aligned": ("verify", "align", "eval", "run"),
    }
    for kind, shard_folder in shards.items():
        for command in commands[kind]:
            rng = kit.random("shards", kind, command)
            slow = 3 if command == "run" else 1
            for number in range(kit.count(24 // slow, 1)):
                paths = sorted(shard_folder.rglob("*.h5"))
                path = paths[rng.randrange(len(paths))]
                place = rng.random()
                if rng.random() < 0.3:  # where HDF5 keeps its own structures
                    place = rng.random() * 4096 / path.stat().st_size
                cut = number % 6 == 5
                args = (base, path.relative_to(base), place, cut, command, rng.randrange(8))
                name = f"{kind}-{command}-{'cut' if cut else 'flip'}-{number}"
                yield Case(name, partial(_try, *args), _LIMIT_S)


def _try(
    base: Path, relative: Path, place: float, cut: bool, command: str, bit: int, folder: Path
) -> Result:
    work = copy(base, folder)
    path = work / relative
    data = bytearray(path.read_bytes())
    where = min(len(data) - 1, int(place * len(data)))
    if cut:
        data = data[:where]
    else:
        data[where] ^= 1 << bit
    path.write_bytes(data)
    result = _COMMANDS[command](base, work, path)
    return Result(result.outcome, result.detail and f"{result.detail} (byte {where}, bit {bit})")


def _same(base: Path, work: Path, part: str, done: Done) -> Result:
    """Whether every shard of a part holds what it held before the damage."""
    try:
        found = contents(work, part)
    except Exception as error:
        return Result(WRONG, f"status 0, but a shard cannot be read: {error}")
    truth = contents(base, part)
    off = sorted(name for name in truth.keys() | found.keys() if truth.get(name) != found.get(name))
    return Result(WRONG, f"status 0, but {off[0]} differs: {done.last}") if off else Result(RIGHT)


def _unread(base: Path, work: Path, path: Path, part: str, done: Done) -> Result:
    """The same; or, where a shard was left as it was and not read, what verify says of it."""
    result = _same(base, work, part, done)
    if result.outcome == WRONG and part in path.parts:
        verified = refused(call("prep", "verify", work), str(path), path.name)
        return verified if verified.outcome != WRONG else result
    return result


def _verify(base: Path, work: Path, path: Path) -> Result:
    done = call("prep", "verify", work)
    if done.status:
        return refused(done, str(path), path.name)
    return _same(base, work, path.relative_to(work).parts[1], done)


def _align(base: Path, work: Path, path: Path) -> Result:
    if "native" in path.parts:
        shutil.rmtree(work / "list" / "aligned")
    done = call("prep", "align", "--resolution", 0.1, "--work", work)
    return refused(done, str(path)) if done.status else _unread(base, work, path, "aligned", done)


def _extract(base: Path, work: Path, path: Path) -> Result:
    done = call("prep", *extract(base.parent, work))
    if done.status:
        return refused(done, str(path))
    return _unread(base, work, path, "native", done)


def _eval(base: Path, work: Path, path: Path) -> Result:
    expected = json.loads((base / "runs" / "conreg" / "report.json").read_text())["test"]
    done = call("train", "eval", "conreg", "--format", "json", "--workers", 0, "--work", work)
    if done.status:
        return refused(done, str(path))
    found = json.loads(done.out)["metrics"]
    return Result(RIGHT) if found == expected else Result(WRONG, f"metrics {found}")


def _run(base: Path, work: Path, path: Path) -> Result:
    shutil.rmtree(work / "runs")
    done = call("train", *run_words("conreg", work))
    if done.status:
        return refused(done, str(path))
    for name in ("report.json", "predictions.csv"):
        before, after = (each / "runs" / "conreg" / name for each in (base, work))
        old, new = before.read_text(), after.read_text()
        if name == "report.json":
            old, new = (str(json.loads(text)["test"]) for text in (old, new))
        if old != new:
            return Result(WRONG, f"{name} differs")
    return Result(RIGHT)


_COMMANDS = {
    "verify": _verify,
    "align": _align,
    "extract": _extract,
    "eval": _eval,
    "run": _run,
}
