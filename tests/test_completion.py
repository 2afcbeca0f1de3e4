"""Shells complete both commands, by click's own line, which docs/commands.md shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("prep ali", ["align"]),
        ("prep extract --pre", ["--precision"]),
        ("prep extract --precision b", ["bfloat16"]),
        ("prep extract --dataset m", ["mtat"]),
        ("prep download dc", ["dcase2017"]),
        ("prep extract --features vggish,op", ["vggish,openl3"]),
        ("train run --reg con", ["conreg"]),
        ("train comp", ["compare"]),
    ],
)
def test_bash_completes_words(words: str, expected: list[str]) -> None:
    command = words.partition(" ")[0]
    script = f"""
eval "$(_{command.upper()}_COMPLETE=bash_source {command})"
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_{command}_completion {command}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "PATH": PATH}, capture_output=True, text=True
    )
    assert sorted(done.stdout.split()) == expected, done.stderr
