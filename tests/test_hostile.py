"""The hostile kit: wrong content, tracebacks and hangs are counted, and there are none."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_lines import BENCHMARKS

sys.path.insert(0, str(BENCHMARKS))  # where a script finds its neighbours
from hostile_kit.cases import HANG, REFUSED, RIGHT, TRACEBACK, WRONG, Case, Result
from hostile_kit.judge import MUST_ACCEPT, judge
from hostile_kit.pool import run_cases
from hostile_kit.signals import differs, find, mono, sweep, write


def kit(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "hostile.py"), *options]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_no_hostile_input_ends_in_wrong_data_a_traceback_or_a_hang() -> None:
    done = kit("--quick")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_ending_is_told_from_the_others(tmp_path: Path) -> None:
    def crash(folder: Path) -> Result:
        raise KeyError("x")

    def die(folder: Path) -> Result:
        sys.exit(3)

    def hang(folder: Path) -> Result:
        time.sleep(60)
        return Result(RIGHT)

    def say(folder: Path) -> Result:
        print("Traceback (most recent call last):\nValueError: x")
        return Result(RIGHT)

    expected = {"good": RIGHT, "crash": TRACEBACK, "die": TRACEBACK, "say": TRACEBACK, "hang": HANG}
    runs = {"good": lambda folder: Result(RIGHT), "crash": crash, "die": die, "say": say,
            "hang": hang}  # fmt: skip
    cases = [Case(name, run, limit_s=1.0) for name, run in runs.items()]
    found = {case.name: result.outcome for case, result in run_cases(cases, 2, tmp_path, 8 << 30)}
    assert found == expected


def test_a_decoded_file_is_held_against_what_was_written(tmp_path: Path) -> None:
    signal = sweep(0.5, 16000)
    path = write(tmp_path / "clip.wav", signal, 16000, subtype="PCM_16")

    def expected(found: object, rate: int) -> str:
        return differs(found, mono(signal), 2e-4)  # type: ignore[arg-type]

    assert judge(path, expected).outcome == RIGHT
    assert judge(path, None).outcome == WRONG
    path.write_bytes(b"no audio")
    assert judge(path, expected).outcome == REFUSED
    assert judge(path, expected, MUST_ACCEPT).outcome == WRONG


def test_a_shift_of_one_sample_and_a_lost_end_are_seen() -> None:
    truth = mono(sweep(1.0, 16000))
    noisy = truth * 1.002
    assert differs(noisy, truth, 0.3) == ""
    assert "shifted by 1" in differs([0.0, *noisy[:-1]], truth, 0.6)
    assert "15999 samples" in differs(noisy[:-1], truth, 0.3)
    assert find(truth, truth[700:9000], 4000)[0] == 700
