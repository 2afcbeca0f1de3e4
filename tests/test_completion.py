"""Shells complete both commands, by the lines that ``completion --help`` shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from featreg.extract.cli.prep import prep
from featreg.train.cli.train import train

COMMANDS = {"prep": prep, "train": train}
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_a_line_for_each_shell(command: str) -> None:
    shown = CliRunner().invoke(COMMANDS[command], ["completion", "--help"]).output
    assert f'eval "$({command} completion bash)"' in shown
    assert f'eval "$({command} completion zsh)"' in shown
    assert f"{command} completion fish | source" in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("command", COMMANDS)
def test_each_script_asks_the_command_itself(command: str, shell: str) -> None:
    done = CliRunner().invoke(COMMANDS[command], ["completion", shell])
    assert done.exit_code == 0
    assert f"_{command.upper()}_COMPLETE={shell}_complete" in done.output
    assert re.search(rf"\b{command}\b", done.output.splitlines()[-1] + done.output)


def test_another_shell_is_refused() -> None:
    done = CliRunner().invoke(prep, ["completion", "csh"])
    assert done.exit_code == 2
    assert "bash" in done.output


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
        ("train comp", ["compare", "completion"]),
    ],
)
def test_bash_completes_words(words: str, expected: list[str]) -> None:
    command = words.partition(" ")[0]
    script = f"""
eval "$({command} completion bash)"
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_{command}_completion {command}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "PATH": PATH}, capture_output=True, text=True
    )
    assert sorted(done.stdout.split()) == expected, done.stderr
