from __future__ import annotations

import gzip
import hashlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from file_server import FileServer

from featreg.datasets.base import FeatregError
from featreg.datasets.collections import fetch as module
from featreg.datasets.collections.fetch import Checksum, fetch

CONTENT = bytes(range(256)) * 4096  # 1 MiB: several pieces of the body
SHA256 = Checksum("sha256", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/a.bin": CONTENT}) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 0.0)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_file_arrives_whole_in_a_folder_that_is_made(server: FileServer, tmp_path: Path) -> None:
    path = fetch(f"{server.base}/a.bin", tmp_path / "new" / "a.bin", checksum=SHA256)
    assert path.read_bytes() == CONTENT
    assert leftovers(path.parent) == ["a.bin"]


def test_a_file_that_is_there_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=SHA256, size=len(CONTENT))
    assert server.ranges == []


def test_a_wrong_file_that_is_there_is_replaced(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"something else")
    fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        ("md5", "900150983cd24fb0d6963f7d28e17f72"),
        ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("sha256", "BA7816BF"),  # torchvggish publishes the first eight digits
        ("git-blob-sha1", "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"),
    ],
)
def test_checksums_of_abc(algorithm: str, value: str, tmp_path: Path) -> None:
    # The vectors of RFC 1321 and FIPS 180-2; the last is `printf abc | git hash-object --stdin`.
    (tmp_path / "abc").write_bytes(b"abc")
    assert Checksum(algorithm, value).matches(tmp_path / "abc")
    (tmp_path / "abc").write_bytes(b"abd")
    assert not Checksum(algorithm, value).matches(tmp_path / "abc")


def test_a_dropped_connection_is_resumed_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    server.faults = [("drop", 300_000), ("drop", 200_000)]
    fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=300000-", "bytes=500000-"]


def test_a_server_that_cannot_resume_starts_over(server: FileServer, tmp_path: Path) -> None:
    server.resumes = False
    server.faults = [("drop", 300_000)]
    fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_body_that_is_always_cut_fails_after_some_attempts(
    server: FileServer, tmp_path: Path
) -> None:
    server.resumes = False
    server.faults = [("drop", 300_000)] * 50
    with pytest.raises(FeatregError, match=r"a\.bin.*4 attempts"):
        fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=SHA256)
    # The first attempt gained ground, the next four did not.
    assert len(server.ranges) == 5
    assert leftovers(tmp_path) == ["a.bin.part"]


def test_a_slow_line_may_drop_any_number_of_times(server: FileServer, tmp_path: Path) -> None:
    server.faults = [("drop", 50_000)] * 20
    fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.faults = [503, 429]
    assert fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=SHA256).is_file()


def test_a_missing_file_is_final_and_the_message_says_what_to_do(
    server: FileServer, tmp_path: Path
) -> None:
    with pytest.raises(FeatregError) as error:
        fetch(f"{server.base}/b.bin", tmp_path / "b.bin", checksum=SHA256)
    for part in (f"{server.base}/b.bin", "404", str(tmp_path / "b.bin"), SHA256.value):
        assert part in str(error.value)
    assert len(server.ranges) == 1


def test_no_network_gives_address_hash_and_place_in_one_line(tmp_path: Path) -> None:
    with FileServer() as gone:
        url = f"{gone.base}/a.bin"
    with pytest.raises(FeatregError) as error:
        fetch(url, tmp_path / "a.bin", checksum=SHA256)
    for part in (url, str(tmp_path / "a.bin"), SHA256.value):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_an_address_that_is_none_is_not_retried(tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match="cannot download nonsense"):
        fetch("nonsense", tmp_path / "a.bin", checksum=None)


def test_a_wrong_hash_keeps_nothing(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match=f"expected md5 {'0' * 32}, found [0-9a-f]{{32}}"):
        fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=Checksum("md5", "0" * 32))
    assert leftovers(tmp_path) == []


def test_a_wrong_size_keeps_nothing(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(FeatregError, match="expected 7 bytes, found 1048576"):
        fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=None, size=7)
    assert leftovers(tmp_path) == []


def test_a_piece_of_another_file_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-", ""]


@pytest.mark.parametrize("excess", [0, 1], ids=["complete", "too long"])
def test_a_piece_with_nothing_to_follow(server: FileServer, tmp_path: Path, excess: int) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"x" * excess)
    fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(server.ranges) == 1 + excess


def test_gzip_stays_gzip_whatever_the_server_calls_it(server: FileServer, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT)
    server.files["/a.gz"] = packed
    server.encoding = "gzip"
    assert fetch(f"{server.base}/a.gz", tmp_path / "a.gz", checksum=None).read_bytes() == packed


def test_a_full_disk_is_noticed_before_the_first_byte(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(FeatregError, match=r"1048576 bytes .*found 1000"):
        fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=None)
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FeatregError, match=rf"{tmp_path}/file: cannot be written to \(.* by hand"):
        fetch(f"{server.base}/a.bin", tmp_path / "file" / "a.bin", checksum=None)


FETCH = """
import sys
from pathlib import Path
from featreg.datasets.collections.fetch import Checksum, fetch
fetch(sys.argv[1], Path(sys.argv[2]), checksum=Checksum("sha256", sys.argv[3]))
"""


def test_a_killed_download_goes_on_where_it_was(server: FileServer, tmp_path: Path) -> None:
    release = threading.Event()
    server.faults = [("stall", release)]
    arguments = [f"{server.base}/a.bin", str(tmp_path / "a.bin"), SHA256.value]
    process = subprocess.Popen([sys.executable, "-c", FETCH, *arguments])
    part = tmp_path / "a.bin.part"
    deadline = time.monotonic() + 30
    # Python's file buffer holds back less than one piece of the body.
    while not (part.exists() and part.stat().st_size >= len(CONTENT) // 4):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    release.set()
    assert leftovers(tmp_path) == ["a.bin.part"]
    present = part.stat().st_size

    fetch(arguments[0], tmp_path / "a.bin", checksum=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.ranges == ["", f"bytes={present}-"]


def test_two_processes_fetch_once(server: FileServer, tmp_path: Path) -> None:
    arguments = [f"{server.base}/a.bin", str(tmp_path / "a.bin"), SHA256.value]
    processes = [subprocess.Popen([sys.executable, "-c", FETCH, *arguments]) for _ in range(2)]
    assert [process.wait(30) for process in processes] == [0, 0]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(server.ranges) == 1
