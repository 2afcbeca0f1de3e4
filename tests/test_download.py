from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from file_server import FileServer
from miniatures import MTAT_CLIPS, SPEECH_FILES, write_mtat, write_speech

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.collections import dcase2017, fetch, mtat, speech_commands
from featreg.datasets.collections import download as module
from featreg.datasets.collections.download import Joined, download
from featreg.datasets.collections.info import Archive, Remote

MEMBERS = {path: random.Random(path).randbytes(3000) for path, _ in MTAT_CLIPS.values()}

# Info-ZIP's `zip -P DCASE_2017_evaluation_set` of set/readme.txt, set/Y-a.wav ("the first") and
# set/Yb.wav ("the second"); Python reads encrypted archives and does not write them.
ENCRYPTED = base64.b64decode(
    """
UEsDBAoACQAAADZDdl2DFtyMDQAAAAEAAAAOAAAAc2V0L3JlYWRtZS50eHSsfMIHDf6jnGPJZR3IUEsHCIMW3IwNAAAA
AQAAAFBLAwQKAAkAAAA2Q3ZdR0I5whUAAAAJAAAACwAAAHNldC9ZLWEud2F2Y9cxr0ZRSU315nxLVnx9/qtpS8hWUEsH
CEdCOcIVAAAACQAAAFBLAwQKAAkAAAA2Q3ZdoUn4qxYAAAAKAAAACgAAAHNldC9ZYi53YXbUtAHhJx95miyGlPtYpGoA
a2dVLC8DUEsHCKFJ+KsWAAAACgAAAFBLAQIeAwoACQAAADZDdl2DFtyMDQAAAAEAAAAOAAAAAAAAAAEAAACkgQAAAABz
ZXQvcmVhZG1lLnR4dFBLAQIeAwoACQAAADZDdl1HQjnCFQAAAAkAAAALAAAAAAAAAAEAAACkgUkAAABzZXQvWS1hLndh
dlBLAQIeAwoACQAAADZDdl2hSfirFgAAAAoAAAAKAAAAAAAAAAEAAACkgZcAAABzZXQvWWIud2F2UEsFBgAAAAADAAMA
rQAAAOUAAAAAAA==
"""
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(fetch, "BACKOFF_S", 0.0)
    with FileServer() as server:
        yield server


@pytest.fixture
def published(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A server with MagnaTagATune in miniature: the archive in three uneven parts."""
    source = tmp_path / "source"
    source.mkdir()
    write_mtat(source, MTAT_CLIPS)
    labels = (source / mtat.LABEL_FILE).read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("readme.txt", "not wanted")
        for name, content in MEMBERS.items():
            archive.writestr(name, content)
    whole = packed.getvalue()
    server.files = {
        "/annotations_final.csv": labels,
        "/mp3.zip.001": whole[:7000],
        "/mp3.zip.002": whole[7000:7001],
        "/mp3.zip.003": whole[7001:],
    }
    checksum = f"md5:{hashlib.md5(labels).hexdigest()}"
    archives = [item for item in mtat.DOWNLOADS if isinstance(item, Archive)]
    parts = tuple(Remote(f"{server.base}/{part.name}") for part in archives[0].parts)
    monkeypatch.setattr(mtat, "INFO", replace(mtat.INFO, clips=(2, 1, 1)))
    monkeypatch.setattr(
        mtat,
        "DOWNLOADS",
        (
            Remote(f"{server.base}/annotations_final.csv", checksum),
            replace(archives[0], parts=parts, files=len(MEMBERS), download_bytes=len(whole)),
        ),
    )
    return server


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(module, "say", lines.append)
    monkeypatch.setattr(module, "warn", lines.append)
    return lines


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


def test_parts_are_unpacked_without_being_joined(
    published: FileServer, tmp_path: Path, said: list[str]
) -> None:
    root = tmp_path / "root"
    download("mtat", root)
    labels = {mtat.LABEL_FILE: published.files["/annotations_final.csv"]}
    assert files(root) == {**labels, **{f"mp3/{name}": data for name, data in MEMBERS.items()}}
    assert said == [f"MagnaTagATune: complete, in {root}"]


def test_what_is_there_is_not_fetched_again(published: FileServer, tmp_path: Path) -> None:
    download("mtat", tmp_path / "root")
    requests = len(published.ranges)
    download("mtat", tmp_path / "root")
    assert len(published.ranges) == requests


def test_unpacking_goes_on_where_it_stopped(
    published: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the third member: two are kept as they are, half of one is written anew."""
    root = tmp_path / "root"
    written: list[Path] = []
    whole = shutil.copyfileobj

    def copy(source: io.BufferedIOBase, target: io.BufferedWriter) -> None:
        written.append(Path(target.name))
        if len(written) == 3:
            target.write(source.read(1000))
            raise KeyboardInterrupt
        whole(source, target)

    monkeypatch.setattr(module, "shutil", SimpleNamespace(**{**vars(shutil), "copyfileobj": copy}))
    with pytest.raises(KeyboardInterrupt):
        download("mtat", root)
    requests = len(published.ranges)
    download("mtat", root)
    assert len(published.ranges) == requests
    assert len(written) == 3 + len(MEMBERS) - 2
    unpacked = {f"mp3/{name}": data for name, data in MEMBERS.items()}
    assert {name: data for name, data in files(root).items() if name in unpacked} == unpacked
    assert not list(root.rglob("*.part"))


def test_a_damaged_archive_is_named_and_kept(published: FileServer, tmp_path: Path) -> None:
    part = bytearray(published.files["/mp3.zip.001"])
    part[1500] ^= 1
    published.files["/mp3.zip.001"] = bytes(part)
    with pytest.raises(FeatregError, match=r"cannot unpack .*mp3.zip.001 .*Bad CRC-32 for file"):
        download("mtat", tmp_path / "root")
    assert (tmp_path / "root" / "mp3.zip.001").is_file()


def test_a_truncated_archive_is_named(published: FileServer, tmp_path: Path) -> None:
    published.files["/mp3.zip.003"] = published.files["/mp3.zip.003"][:-500]
    with pytest.raises(FeatregError, match=r"cannot unpack .*mp3.zip.003"):
        download("mtat", tmp_path / "root")


def test_an_archive_with_other_members_is_refused(published: FileServer, tmp_path: Path) -> None:
    labels, archive = mtat.DOWNLOADS
    mtat.DOWNLOADS = (labels, replace(archive, files=7))  # undone by the fixture
    with pytest.raises(FeatregError, match="expected 7 files in the archive, found 6"):
        download("mtat", tmp_path / "root")


def test_wrong_labels_are_refused(published: FileServer, tmp_path: Path) -> None:
    published.files["/annotations_final.csv"] += b"\n"
    with pytest.raises(FeatregError, match=r"annotations_final.csv.*expected.* md5"):
        download("mtat", tmp_path / "root")
    assert files(tmp_path / "root") == {}


def test_room_is_checked_before_the_first_byte(
    published: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda _: 3_000_000_000)
    expected = "expected 3.1 GB .*found 3.0 GB"
    with pytest.raises(FeatregError, match=expected):
        download("mtat", tmp_path / "root")
    assert published.ranges == []
    # What is unpacked already needs no room any more.
    (tmp_path / "root" / "mp3").mkdir(parents=True)
    with (tmp_path / "root" / "mp3" / "done").open("wb") as file:
        os.truncate(file.fileno(), 200_000_000)
    download("mtat", tmp_path / "root")


def test_an_encrypted_archive_and_what_the_user_must_bring(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    server.files = {"/evaluation.zip": ENCRYPTED}
    archive = next(item for item in dcase2017.DOWNLOADS if isinstance(item, Archive))
    parts = (Remote(f"{server.base}/evaluation.zip", size=len(ENCRYPTED)),)
    monkeypatch.setattr(dcase2017, "DOWNLOADS", (replace(archive, parts=parts, files=2),))
    download("dcase2017", tmp_path)
    assert files(tmp_path) == {
        "audio/evaluation/Y-a.wav": b"the first",
        "audio/evaluation/Yb.wav": b"the second",
    }
    assert "ROOT/audio/training and ROOT/audio/testing" in said[-1]

    locked = replace(archive, parts=parts, files=2, folder="again", password="a guess")
    monkeypatch.setattr(dcase2017, "DOWNLOADS", (locked,))
    with pytest.raises(FeatregError, match=r"cannot unpack .*Bad password"):
        download("dcase2017", tmp_path)


def test_a_compressed_tar_file(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_speech(source, SPEECH_FILES)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(source, ".")
        evil = tarfile.TarInfo("../yes/evil.wav")
        archive.addfile(evil, io.BytesIO())
    server.files = {"/speech.tar.gz": packed.getvalue()}
    published = speech_commands.DOWNLOADS[0]
    sha256 = hashlib.sha256(packed.getvalue()).hexdigest()
    parts = (Remote(f"{server.base}/speech.tar.gz", f"sha256:{sha256}"),)
    monkeypatch.setattr(speech_commands, "DOWNLOADS", (replace(published, parts=parts, files=7),))
    monkeypatch.setattr(speech_commands, "INFO", replace(speech_commands.INFO, clips=(3, 1, 1)))
    root = tmp_path / "root"
    download("speech_commands", root)
    assert set(files(root)) == {*SPEECH_FILES, *speech_commands.LISTS}
    assert said == [f"Speech Commands v2: complete, in {root}"]


def test_nothing_to_download(tmp_path: Path, said: list[str]) -> None:
    download("demo", tmp_path)
    assert said == ["featreg demo: nothing: the clips come with featreg"]
    with pytest.raises(UsageError, match="no dataset called 'gtzan'"):
        download("gtzan", tmp_path)


def test_joined_files_read_as_one(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(1000)
    cuts = (0, 1, 400, 400, 977, 1000)  # an empty file among them
    paths = []
    for start, stop in pairwise(cuts):
        paths.append(tmp_path / f"{start}-{stop}-{len(paths)}")
        paths[-1].write_bytes(content[start:stop])
    generator = random.Random(1)
    with io.BufferedReader(Joined(paths), 64) as joined, io.BytesIO(content) as plain:
        for _ in range(500):
            offset, whence = generator.choice([(generator.randrange(1100), 0), (-9, 1), (-70, 2)])
            if whence != io.SEEK_CUR or joined.tell() >= 9:
                assert joined.seek(offset, whence) == plain.seek(offset, whence)
            size = generator.randrange(300)
            assert joined.read(size) == plain.read(size)
            assert joined.tell() == plain.tell()
