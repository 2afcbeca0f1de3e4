"""A process that may be thrown away: what it is asked, how it dies, and that nobody minds."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kit import make_clip, tone, write

from featreg.datasets.base import Clip, ClipError
from featreg.extract.pipeline import decoder_pool as ahead
from featreg.extract.pipeline.child_process import ChildDied, ChildHung, ChildProcess, StartError
from featreg.extract.pipeline.decode import DecodedClip, DecodeOptions, decode_clip
from featreg.extract.pipeline.decoder_pool import Decoders
from featreg.extract.pipeline.isolate_clips import time_limit

HEARING = DecodeOptions((16000,), "soxr_hq", False)


def work(
    what: str, values: npt.NDArray[np.float32] | None = None
) -> tuple[int, npt.NDArray[np.float32] | None]:
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "leave":
        os._exit(7)
    if what == "hang":
        time.sleep(1e6)
    if what == "hang in C":
        with time_limit(0.3):
            re.match("(a+)+$", "a" * 60 + "b")  # for years, and no other thread of Python runs
    if what == "in time":
        with time_limit(0.2):
            pass
        with suppress(ZeroDivisionError), time_limit(0.2):
            1 / 0  # noqa: B018
        time.sleep(0.4)
    if what == "raise":
        raise ClipError("decode", "no audio")
    if what == "print":
        print("noise")  # answers must not go where this goes
        os.write(1, b"more noise")
    return os.getpid(), None if values is None else values * 2


@pytest.fixture(scope="module")
def child() -> Iterator[ChildProcess[..., tuple[int, npt.NDArray[np.float32] | None]]]:
    with closing(ChildProcess(work, timeout_s=5.0)) as child:
        yield child


def test_arrays_go_and_come(child: ChildProcess[..., tuple[int, npt.NDArray[np.float32]]]) -> None:
    values = np.arange(1_000_000, dtype=np.float32)
    pid, doubled = child("print", values=values)
    assert pid != os.getpid()
    np.testing.assert_array_equal(doubled, values * 2)
    doubled += 1  # it is ours to write to
    assert child("again")[0] == pid
    assert child.peak_bytes > values.nbytes


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child's peak is its own")
def test_its_memory_is_not_its_parent_s() -> None:
    # Pages that are written to, in a process that had them before the child was started.
    program = """
import numpy as np
from test_child_process import work
from featreg.extract.pipeline.child_process import ChildProcess, peak_bytes
assert np.ones(1 << 27).nbytes == 1 << 30
child = ChildProcess(work, 60.0)
child("work")
child.close()
print(peak_bytes(), child.peak_bytes)
"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True)
    ours, child = map(int, done.stdout.split())
    assert ours > 1 << 30
    assert 1e7 < child < 5e8


def test_what_it_raises_is_raised_here(child: ChildProcess[..., object]) -> None:
    with pytest.raises(ClipError, match="no audio") as caught:
        child("raise")
    assert (caught.value.stage, caught.value.reason) == ("decode", "no audio")


@pytest.mark.parametrize(
    ("what", "how"), [("crash", "ended by SIGSEGV"), ("leave", "exited with status 7")]
)
def test_its_death_is_told_and_the_next_call_has_another(
    what: str, how: str, child: ChildProcess[..., tuple[int, object]]
) -> None:
    before = child("work")[0]
    with pytest.raises(ChildDied, match=how):
        child(what)
    assert child("work")[0] != before


def test_one_that_hangs_is_ended() -> None:
    with closing(ChildProcess(work, timeout_s=0.3)) as child:
        pid = child("work")[0]
        with pytest.raises(ChildHung, match=r"no answer within 0\.3 s"):
            child("hang")
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_that_its_time_limit_ends_is_known_to_hang(child: ChildProcess[..., object]) -> None:
    with pytest.raises(ChildHung):
        child("hang in C")
    assert child("work")


def test_a_time_limit_ends_nothing_that_ends_in_time(
    child: ChildProcess[..., tuple[int, None]],
) -> None:
    assert child("in time")[0] == child("work")[0]


def test_it_does_not_outlive_its_parent_even_if_it_hangs() -> None:
    program = """
import sys
from test_child_process import work
from featreg.extract.pipeline.child_process import ChildProcess
child = ChildProcess(work, 1e6)
print(child("work")[0], flush=True)
child("hang")
"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=env)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # ended, and nobody here whose task it is to say so
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child lived on")


@pytest.mark.parametrize("long", [1 << 28, 0])  # bytes from which a clip is long: none, all
def test_clips_come_in_order_as_they_would_here(
    long: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_LONG", long)
    clips = [
        make_clip(write(tmp_path / f"{k}.wav", tone(0.3 + k / 10, 8000), 8000)) for k in range(7)
    ]
    clips[3].path.unlink()
    decoders = Decoders(2, timeout_s=60.0)
    found = list(decoders.decode_all(clips, HEARING))
    assert [clip.clip_id for clip, _ in found] == [clip.clip_id for clip in clips]
    for clip, heard in found:
        here = decode_clip(clip, HEARING)
        if isinstance(here, ClipError):
            assert isinstance(heard, ClipError)
            assert heard.reason == here.reason
        else:
            assert isinstance(heard, DecodedClip)
            assert heard.duration_s == here.duration_s
            np.testing.assert_array_equal(heard.signals[16000], here.signals[16000])


def test_a_decoder_that_somebody_kills_is_asked_again(tmp_path: Path) -> None:
    clip = make_clip(write(tmp_path / "a.wav", tone(1.0, 8000), 8000))
    asked = []

    class Killed(ChildProcess[[Clip, DecodeOptions], DecodedClip | ClipError]):
        def __call__(self, *arguments: Any, **options: Any) -> DecodedClip | ClipError:
            asked.append(arguments)
            if len(asked) == 1:
                raise ChildDied("it was ended by SIGKILL")
            return super().__call__(*arguments, **options)

    decoders = Decoders(1, timeout_s=60.0)
    with closing(Killed(decode_clip, 60.0)) as decoder:
        decoders._idle = [decoder]
        ((_, heard),) = decoders.decode_all([clip], HEARING)
    assert isinstance(heard, DecodedClip)
    assert len(asked) == 2


def test_a_process_that_cannot_be_started_is_reported_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(StartError, match=r"could be started on .*: .*Resource temporarily unavail"):
        ChildProcess(work, 1.0)("work")
