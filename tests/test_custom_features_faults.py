"""A class of the user's that fails: one line that says what failed, in which file and line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from kit import tone, write

from featreg.datasets.base import ClipError, UsageError
from featreg.extract.cli.prep import prep
from featreg.extract.extractors import registry
from featreg.extract.extractors.custom import load_class

SIMPLE = """
import sys
from dataclasses import dataclass
import numpy as np
from featreg.datasets.shards.timing import FrameTiming
from featreg.extract.extractors.custom import WholeClip

@dataclass(frozen=True)
class Config:
    gain: float = 1.0

class Level(WholeClip):
    name = "level"
    Config = Config
    sample_rate = 8000
    dim = 1
    timing = FrameTiming(0.5, 0.5, 0.25)

    def compute(self, signal):
        return np.ones((len(signal) // 4000, 1))
"""
END = "\n    def compute"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A folder of its own for each test, and no module of the test before."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    registry._build.cache_clear()
    yield
    sys.modules.pop("faulty", None)
    registry._build.cache_clear()


def extract(folder: Path, code: str, *options: str) -> tuple[int, str]:
    """Exit status and output of ``prep extract`` with the class in `code`."""
    (folder / "faulty.py").write_text(code)
    write(folder / "a.wav", tone(1.0, 8000), 8000)
    (folder / "one.csv").write_text("path,split,labels\na.wav,train,x\n")
    line = ["extract", "--dataset", str(folder / "one.csv"), "--features", "faulty:Level"]
    line += ["--work", str(folder / "work"), "--allow-missing", "--dry-run", *options]
    done = CliRunner().invoke(prep, line)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("", "raise OSError('no disk')", "OSError: no disk"),
        ("", "sys.exit(0)", "SystemExit: 0"),
        ("", "def broken(:", "SyntaxError: "),
        ("", "import numpy.nowhere", "nowhere"),
        (END, "\n    def __init__(self, *given):\n        1 / 0\n" + END, "ZeroDivisionError: "),
        (END, "\n    def __init__(self, *given):\n        sys.exit(0)\n" + END, "SystemExit: 0"),
        (END, "\n    def __init__(self):\n        pass\n" + END, "TypeError: "),
        ("    dim = 1\n", "    @property\n    def dim(self):\n        {}[3]\n", "KeyError: 3"),
        (END, "\n    @property\n    def settings(self):\n        raise ValueError('s')\n" + END,
         "ValueError: s"),
        (END, "\n    @classmethod\n    def weight_names(cls, c):\n        open('none')\n" + END,
         "FileNotFoundError: "),
        ("gain: float", "gain: Floating", "Floating"),
        ("@dataclass(frozen=True)\n", "", "TypeError: "),
        ("gain: float = 1.0", "gain: float = 1.0\n    def __post_init__(self):\n        assert 0",
         "AssertionError: "),
        ("hop_s", "", "ValueError: hop_s must be above 0"),
    ],
)  # fmt: skip
def test_whatever_fails_in_a_class_is_one_line_with_file_and_line(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    code = SIMPLE.replace(old, new, 1) if old else SIMPLE + new + "\n"
    if old == "hop_s":
        code = SIMPLE.replace("FrameTiming(0.5", "FrameTiming(-0.5")
    status, output = extract(tmp_path, code)
    assert status == 2, output
    (line,) = [each for each in output.splitlines() if each.startswith("error: ")]
    assert "faulty:Level" in line
    assert words in line
    assert "Traceback" not in output
    if "nowhere" in new or "TypeError" in words or "Floating" in words:
        return  # what fails is a call of the class, which the message names
    number = int(line.rpartition("(faulty.py, line ")[2].rstrip(")"))
    assert 1 <= number <= code.count("\n")


def test_the_line_is_the_users_own_not_the_librarys(tmp_path: Path) -> None:
    code = SIMPLE.replace(END, "\n    def __init__(self, *given):\n        np.zeros(-1)\n" + END)
    _, output = extract(tmp_path, code)
    line = code[: code.index("np.zeros")].count("\n") + 1
    assert f"(faulty.py, line {line})" in output


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("    dim = 1\n", "    dim = 1\n    dtype = np.complex64\n", "complex64"),
        ("    dim = 1\n", "    dim = 1\n    dtype = np.float64\n", "float64"),
        (END, "\n    settings = {'path': open}\n" + END, "settings"),
        (END, "\n    settings = {'gain': float('nan')}\n" + END, "settings"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_computed(
    old: str, new: str, word: str, tmp_path: Path
) -> None:
    status, output = extract(tmp_path, SIMPLE.replace(old, new, 1))
    assert status == 2, output
    (line,) = [each for each in output.splitlines() if each.startswith("error: ")]
    assert word in line


def test_a_setting_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    status, output = extract(tmp_path, SIMPLE, "--set", "level.gain=nan")
    assert status == 2
    assert "level.gain" in output or "settings" in output


def test_a_clip_fails_with_the_line_that_raised(tmp_path: Path) -> None:
    code = SIMPLE.replace("        return np.ones", "        sys.exit(3)\n        return np.ones")
    (tmp_path / "faulty.py").write_text(code)
    extractor = load_class("faulty:Level")(load_class("faulty:Level").Config(), {})
    line = code[: code.index("sys.exit")].count("\n") + 1
    with pytest.raises(ClipError, match=rf"level: SystemExit: 3 \(faulty\.py, line {line}\)"):
        extractor.extract(np.zeros(8000, np.float32))


def test_a_module_that_fails_to_look_a_name_up_is_named(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text("def __getattr__(name):\n    raise OSError(name)\n")
    with pytest.raises(UsageError, match=r"faulty:Level: OSError: Level \(faulty\.py, line 2\)"):
        load_class("faulty:Level")
