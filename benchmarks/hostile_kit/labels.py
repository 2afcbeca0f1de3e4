"""Kind 9: lists of clips with the peculiarities and errors of spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .cases import RIGHT, TRACEBACK, WRONG, Case, Kit, Result
from .commands import Done, call, failures, refused, stored
from .signals import differs, mono, sweep, write

_RATE = 16000
_HEAD = ["path", "labels", "split"]
_CLIPS = [("0.wav", "low", "train"), ("1.wav", "high|low", "train"), ("2.wav", "high", "train"),
          ("3.wav", "low|high", "valid"), ("4.wav", "low|high", "test")]  # fmt: skip


def _csv(rows: list[list[str]], **dialect: str) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, **{"lineterminator": "\n", **dialect}).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def _rows() -> list[list[str]]:
    return [_HEAD, *map(list, _CLIPS)]


def _renamed(name: str) -> str:
    """The third clip has this name, written as CSV writes it."""
    rows = _rows()
    rows[3][0] = name
    return _csv(rows)


def _column(name: str, *cells: str) -> str:
    """One more column, filled with `cells`, then left empty."""
    rows = [[*row, ""] for row in _rows()]
    rows[0][-1] = name
    for row, cell in zip(rows[1:], cells, strict=False):
        row[-1] = cell
    return _csv(rows)


NAMES = {
    "return": "a\rb.wav", "newline": "a\nb.wav", "both": "a\r\nb.wav", "quote": 'a"b.wav',
    "quotes": '"ab".wav', "comma": "a,b.wav", "lead": " ab.wav", "trail": "ab.wav ",
    "tab": "a\tb.wav",
    "bell": "a\ab.wav", "unicode": "ü日本.wav", "decomposed": "u\u0308.wav",
    "latin": "\udcfc.wav",
    "equals": "=1+1.wav", "hash": "#ab.wav", "dash": "-n.wav", "percent": "%s%d.wav",
    "at": "a@b.wav",
    "bar": "a|b.wav", "semicolon": "a;b.wav", "apostrophe": "it's.wav", "long": "n" * 200 + ".wav",
    "bracket": "[red]a.wav", "nbsp": "a\u00a0b.wav", "separator": "a\u2028b.wav",
    "null": "NA",
    "number": "1e5", "backslash": "a\\b.wav", "bom-inside": "a\ufeffb.wav",
    "direction": "a\u202eb.wav",
}  # fmt: skip

# Name: the bytes of the list; what a refusal must name; and the clips that an acceptance has.
_ALL = tuple(range(5))
_TEXT = _csv(_rows())
_FILES: dict[str, tuple[str | bytes, tuple[str, ...], tuple[int, ...] | None]] = {
    "plain": (_TEXT, (), _ALL),
    "bom": ("\ufeff" + _TEXT, (), _ALL),
    "utf-16": (_TEXT.encode("utf-16"), ("list.csv",), _ALL),
    "crlf": (_TEXT.replace("\n", "\r\n"), ("list.csv",), _ALL),
    "cr": (_TEXT.replace("\n", "\r"), ("list.csv",), _ALL),
    "mixed-ends": (_TEXT.replace("\n", "\r\n", 2), ("list.csv",), _ALL),
    "no-last-end": (_TEXT.rstrip("\n"), (), _ALL),
    "blank-lines": (_TEXT.replace("\n", "\n\n"), ("list.csv",), _ALL),
    "quoted": (_csv(_rows(), quoting=csv.QUOTE_ALL), (), _ALL),  # type: ignore[arg-type]
    "semicolons": (_TEXT.replace(",", ";"), ("list.csv",), _ALL),
    "tabs": (_TEXT.replace(",", "\t"), ("list.csv",), _ALL),
    "spaces": (_TEXT.replace(",", " , "), (), _ALL),
    "empty": ("", ("list.csv",), None),
    "header-alone": ("path,labels,split\n", ("list.csv",), None),
    "only-returns": ("\r\n" * 50, ("list.csv",), None),
    "nul": (_TEXT.replace("1.wav", "1\0.wav"), ("line 3",), None),
    "nul-first": ("\0" + _TEXT, ("list.csv",), None),
    "nuls": (bytes(5000), ("list.csv",), None),
    "binary": (bytes(range(256)) * 20, ("list.csv",), None),
    "latin-1": (_TEXT.encode() + b"\xfc.wav,low,train\n", ("line 7", "list.csv"), _ALL),
    "html": ("<html><body>404</body></html>\n" * 9, ("list.csv",), None),
    "json": ('[{"path": "0.wav", "labels": "low"}]', ("list.csv",), None),
    "wide-cell": (_TEXT + "x" * 10_000_000 + ",low,train\n", ("line 7",), None),
    "wide-label": (_TEXT + "0.wav," + "x|" * 500_000 + ",train\n", ("line 7", "list.csv"), None),
    "many-columns": (_csv([[*_HEAD, *map(str, range(5000))]]), ("list.csv",), None),
    "open-quote": (_TEXT + '"0.wav,low,train\n', ("line 7",), None),
    "short-row": (_TEXT + "0.wav\n", ("line 7",), None),
    "long-row": (_TEXT + "0.wav,low,train,more\n", ("line 7",), None),
    "empty-path": (_TEXT + ",low,train\n", ("line 7",), None),
    "duplicate": (_TEXT + "0.wav,low,train\n", ("line 7",), None),
    "missing-file": (_TEXT + "5.wav,low,train\n", ("5.wav",), _ALL),
    "parent-folder": (_TEXT + "../5.wav,low,train\n", ("5.wav",), _ALL),
    "a-folder": (_TEXT + ".,low,train\n", ("line 7", "list.csv"), _ALL),
    "split-wrong": (_TEXT + "0.wav,low,sometimes\n", ("line 7",), None),
    "split-case": (_TEXT.replace("valid", "VALID"), ("line 5",), _ALL),
    "no-path": (_TEXT.replace("path", "file", 1), ("path",), _ALL),
    "no-labels": (_csv([["path"], *([each[0]] for each in _CLIPS)]), ("labels", "label"), _ALL),
    "path-twice": (_TEXT.replace("labels", "path", 1), ("path",), None),
    "nameless": (_TEXT.replace("labels", "", 1), (), _ALL),
    "class-path": (_TEXT.replace("high|low", "path"), ("path",), None),
    "class-return": (_csv([_HEAD, ["0.wav", "a\rb", "train"]]), ("list.csv",), None),
    "ids-twice": (_column("clip_id", "x", "x"), ("line 3",), None),
    "id-newline": (_column("clip_id", "a\nb"), ("line",), None),
    "id-spaces": (_column("clip_id", "a b", " c", "d "), (), _ALL),
    "id-slash": (_column("clip_id", "../../a", "/etc/b"), ("line",), _ALL),
}  # fmt: skip
_NUMBERS = ("nan", "inf", "-inf", "-1", "1e308", "1e400", "0x10", "1,5", "1_000", "one", "1e-300",
            "٣", "1 s", "00:01", "9" * 400, "-0.0", "+0.1", ".1", "1.")  # fmt: skip


def cases(kit: Kit) -> Iterator[Case]:
    """Unusual file names, encodings and numbers in the list."""
    for number, (name, (content, names, clips)) in enumerate(_FILES.items()):
        if not kit.quick or number % 8 == 0:
            yield Case(f"list-{name}", partial(_list, content, names, clips), limit_s=90)
    for number, (key, name) in enumerate(NAMES.items()):
        if not kit.quick or number % 8 == 0:
            yield Case(f"name-{key}", partial(_name, name), limit_s=90)
    for column in ("start_s", "duration_s"):
        for number, cell in enumerate(_NUMBERS):
            if not kit.quick or number % 8 == 0:
                case = partial(_number, column, cell)
                yield Case(f"{column}-{cell[:20]}", case, limit_s=90)


def _make(folder: Path, name: str = "2.wav") -> None:
    for k in range(5):
        path = write(folder / f"{k}.wav", sweep(0.4, _RATE, 1, k), _RATE, subtype="PCM_16")
        if k == 2:
            path.rename(folder / name)


def _run(folder: Path, listed: Path, work: str = "work") -> Done:
    return call("prep", "extract", "--dataset", listed, "--root", folder, "--allow-missing",
                "--features", "audio", "--work", folder / work)  # fmt: skip


def _judge(folder: Path, done: Done, clips: tuple[int, ...], work: str = "work") -> Result:
    """The stored audio against that of `clips`, in whatever order, under whatever id."""
    found = list(stored(folder / work).values())
    for k in clips:
        truth = mono(sweep(0.4, _RATE, 1, k))
        if not any(not differs(each[:, 0], truth, 1e-3) for each in found):
            return Result(WRONG, f"clip {k} is not there, {len(found)} are: {done.last}")
    if len(found) != len(clips):
        return Result(WRONG, f"{len(found)} clips instead of {len(clips)}")
    return Result(RIGHT)


def _list(
    content: str | bytes, names: tuple[str, ...], clips: tuple[int, ...] | None, folder: Path
) -> Result:
    _make(folder)
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
    (folder / "list.csv").write_bytes(data)
    done = _run(folder, folder / "list.csv")
    if done.status == 0 and clips is not None:
        return _judge(folder, done, clips)
    if done.status == 1 and clips is not None and failures(folder / "work"):
        result = _judge(folder, done, clips)
        return result if result.outcome == WRONG else Result("refused and named", done.last)
    return refused(done, *names)


def _name(name: str, folder: Path) -> Result:
    """A file's name must go into clips.csv and come out of it, or be refused at once."""
    _make(folder, name)
    data = _renamed(name).encode("utf-8", "surrogateescape")
    (folder / "list.csv").write_bytes(data)
    done = _run(folder, folder / "list.csv")
    if done.status:
        return refused(done, "line 4", "list.csv")
    if (result := _judge(folder, done, _ALL)).outcome != RIGHT:
        return result
    if (verified := call("prep", "verify", folder / "work")).status:
        return Result(WRONG, f"extracted, but verify: {verified.last}")
    (written,) = (folder / "work").glob("*/clips.csv")
    again = _run(folder, written, "again")
    if again.status:
        return Result(WRONG, f"clips.csv cannot be read again: {again.last}")
    return _judge(folder, again, _ALL, "again")


def _number(column: str, cell: str, folder: Path) -> Result:
    """A start or a length in the first row; the others are whole files."""
    _make(folder)
    (folder / "list.csv").write_text(_column(column, cell))
    done = _run(folder, folder / "list.csv")
    others = stored(folder / "work")
    if done.status and not others:
        return refused(done, "line 2", "0.wav")
    if "Traceback" in done.out + done.err:
        return Result(TRACEBACK, done.last)
    failed = failures(folder / "work")
    if failed:  # the clip alone
        if len(failed) == 1 and done.status == 1 and "0.wav" in next(iter(failed.values())):
            return Result("refused and named", next(iter(failed.values())))
        return Result(WRONG, f"status {done.status}, {failed}")
    seconds = float(cell)
    start = round(seconds * _RATE) if column == "start_s" else 0
    stop = None if column == "start_s" else round(min(seconds, 9) * _RATE)
    truth = mono(sweep(0.4, _RATE, 1, 0))[start:stop]
    first = next(each for name, each in others.items() if name.startswith("0.wav"))
    why = differs(first[:, 0], truth, 1e-3)
    return Result(WRONG if why else RIGHT, why)
