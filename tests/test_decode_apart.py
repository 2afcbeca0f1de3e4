"""Single files decoded in a child process: nothing that a decoder does reaches the command."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from kit import make_clip
from sweeps import encoded, sweep

from featreg.datasets.audio.decode import decode
from featreg.datasets.base import Clip, ClipError
from featreg.extract.pipeline import decoder_pool
from featreg.extract.pipeline.child_process import ChildProcess
from featreg.extract.pipeline.decoder_pool import decode_apart


def die(clip: Clip) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_the_samples_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("WAV", samples=sweep(channels=2)))
    samples, rate = decode_apart(make_clip(path))
    np.testing.assert_array_equal(samples, decode(make_clip(path))[0])
    assert rate == 16000


def test_what_the_decoder_prints_is_not_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded("MP3")
    path = tmp_path / "a.mp3"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ClipError):
        decode(make_clip(path))
    assert "Xing stream size" in capfd.readouterr().err  # libmpg123 prints to this process
    with pytest.raises(ClipError, match=r"a\.mp3 breaks off"):
        decode_apart(make_clip(path))
    assert capfd.readouterr() == ("", "")


def test_a_crash_is_an_error_of_this_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "_single_decoder", lambda: ChildProcess(die, 60.0))
    with pytest.raises(ClipError, match=r"a\.wav: the decoder crashed twice: .*SIGSEGV"):
        decode_apart(make_clip(tmp_path / "a.wav"))


def test_relative_paths_follow_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(encoded("WAV", samples=sweep(channels=1)))
        monkeypatch.chdir(tmp_path / name)
        assert len(decode_apart(make_clip(Path("a.wav")))[0])
    (tmp_path / "one" / "b.wav").write_bytes(encoded("WAV", samples=sweep(channels=1)))
    monkeypatch.chdir(tmp_path / "one")
    assert len(decode_apart(make_clip(Path("b.wav")))[0])
