from __future__ import annotations

import dataclasses
import errno
import fcntl
import gzip
import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from file_server import FileServer
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from weight_files import (
    OPENL3,
    OPENL3_FILE,
    PCA_FILE,
    assert_pca,
    pca,
    publish,
    write_pca,
)

from featreg.datasets.base import FeatregError, UsageError
from featreg.datasets.collections.fetch import Checksum
from featreg.extract.weights import convert as conversion
from featreg.extract.weights.cache import cache, locate, parse_overrides, whereabouts
from featreg.extract.weights.registry import WEIGHTS

pytest_plugins = ("weight_fixtures",)
pytestmark = pytest.mark.usefixtures("own_cache")


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# What is known


def test_every_name_that_a_feature_may_ask_for_is_known() -> None:
    openl3 = {f"openl3-{r}-{c}" for r in ("linear", "mel128", "mel256") for c in ("music", "env")}
    efficientat = {f"efficientat-mn{width}" for width in ("04", "05", "10", "20", "30", "40")}
    musicnn = {"musicnn-msd", "musicnn-mtt"}
    assert set(WEIGHTS) == {"vggish", "vggish_pca"} | musicnn | openl3 | efficientat


def test_addresses_and_hashes_are_whole() -> None:
    digits = {"md5": {32}, "sha256": {64, 8}, "git-blob-sha1": {40}}
    for known in WEIGHTS.values():
        for item in known.published:
            assert item.source.endswith(item.file) or item.source.startswith("pip download")
            if item.checksum is None:  # nobody published one
                assert known.family == "efficientat"
                continue
            assert len(item.checksum.value) in digits[item.checksum.algorithm]
            int(item.checksum.value, 16)
    published = [item for known in WEIGHTS.values() for item in known.published]
    hashes = [item.checksum for item in published if item.checksum]
    assert len(set(hashes)) == len(hashes) - 1  # the two musicnn models lie in one wheel


def test_unknown_names_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"vgish.* vggish,"):
        locate("vgish", {})


# Fetched


def test_fetched_once_converted_and_kept_as_safetensors(
    server: FileServer, seeded: ModuleType
) -> None:
    path = locate("vggish_pca", {})
    assert_pca(path, seeded)
    assert locate("vggish_pca", {}) == path
    assert len(server.ranges) == 1
    assert visible(cache()) == [path.name]


def test_openl3_arrives_through_gzip_and_keras(server: FileServer, seeded: ModuleType) -> None:
    arrays = load_file(locate(OPENL3, {}))
    for i in (0, 7):
        kernel = seeded.kernel(
            f"openl3/mel256/conv{i}/kernel", (3, 3, *{0: (1, 64), 7: (512, 512)}[i])
        )
        np.testing.assert_array_equal(arrays[f"conv{i}.weight"], kernel.transpose(3, 2, 0, 1))
        norm = seeded.batch_norm(f"openl3/mel256/bn{i}", {0: 1, 7: 512}[i])
        np.testing.assert_array_equal(arrays[f"bn{i}.running_var"], norm["variance"])
    assert whereabouts(WEIGHTS[OPENL3]) == f"cached: {locate(OPENL3, {})}"


def test_a_dropped_connection_does_not_matter(server: FileServer, seeded: ModuleType) -> None:
    server.faults = [("drop", 10_000), 503]
    assert_pca(locate("vggish_pca", {}), seeded)
    assert server.ranges == ["", "bytes=10000-", "bytes=10000-"]


def test_a_cache_without_locks_is_used_with_a_warning(
    server: FileServer,
    seeded: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(logging.getLogger("featreg"), "propagate", True)
    assert_pca(locate("vggish_pca", {}), seeded)
    assert f"{cache()}: this file system has no locks (No locks available)" in caplog.text


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(
    number: int, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.suffix == ".lock":
            raise OSError(number, os.strerror(number))
        return whole(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    words = rf"{cache()}: cannot be written to \({os.strerror(number)}\); .*XDG_CACHE_HOME"
    with pytest.raises(FeatregError, match=words):
        locate("vggish_pca", {})


@pytest.mark.parametrize("name", ["vggish_pca", OPENL3])
def test_what_is_not_as_published_is_never_read(
    name: str, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, name, Checksum("md5", "0" * 32))
    monkeypatch.setattr(conversion, "_read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(FeatregError, match=f"expected md5 {'0' * 32}, found"):
        locate(name, {})
    assert visible(cache()) == []


def test_without_a_network_one_line_says_what_to_put_where(
    server: FileServer, files: Path, seeded: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATREG_WEIGHTS_URL", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(FeatregError) as error:
        locate("vggish_pca", {})
    place = cache() / PCA_FILE
    for part in (f"http://127.0.0.1:9/{PCA_FILE}", str(place), "expected: md5 "):
        assert part in str(error.value)
    assert "\n" not in str(error.value)

    place.write_bytes((files / PCA_FILE).read_bytes())
    assert whereabouts(WEIGHTS["vggish_pca"]) == f"converted on first use: {place}"
    assert_pca(locate("vggish_pca", {}), seeded)
    assert place.exists()  # it is the user's


def test_the_second_published_format_will_do_when_put_by_hand(
    seeded: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = WEIGHTS["vggish_pca"].published[1]
    cache().mkdir(parents=True)
    torch.save(pca(seeded), cache() / second.file)
    checksum = Checksum("sha256", Checksum("sha256", "").of(cache() / second.file)[:8])
    known = dataclasses.replace(
        WEIGHTS["vggish_pca"],
        published=(
            WEIGHTS["vggish_pca"].published[0],
            dataclasses.replace(second, checksum=checksum),
        ),
    )
    monkeypatch.setitem(WEIGHTS, "vggish_pca", known)
    assert_pca(locate("vggish_pca", {}), seeded)


def test_weights_without_an_address_say_how_to_get_them() -> None:
    with pytest.raises(FeatregError, match=r"`pip download .*prep weights convert musicnn-mtt "):
        locate("musicnn-mtt", {})


LOCATE = """
import dataclasses, sys
from featreg.datasets.collections.fetch import Checksum
from featreg.extract.weights.registry import WEIGHTS
from featreg.extract.weights.self_check import vggish_self_check
from featreg.extract.weights.cache import locate
known = WEIGHTS["vggish_pca"]
first = dataclasses.replace(known.published[0], checksum=Checksum("md5", sys.argv[1]))
WEIGHTS["vggish_pca"] = dataclasses.replace(known, published=(first,))
print(locate("vggish_pca", {}))
"""


def test_two_processes_fetch_and_convert_once(server: FileServer, seeded: ModuleType) -> None:
    md5 = WEIGHTS["vggish_pca"].published[0].checksum.value
    processes = [
        subprocess.Popen([sys.executable, "-c", LOCATE, md5], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert len(paths) == 1
    assert_pca(Path(paths.pop()), seeded)
    assert len(server.ranges) == 1


# Given by the user


@pytest.mark.parametrize("name", [OPENL3, "openl3"])
def test_a_file_of_ones_own_is_used_and_named(
    name: str, files: Path, messages: pytest.LogCaptureFixture
) -> None:
    overrides = parse_overrides([f"{name}={files / OPENL3_FILE}"])
    path = locate(OPENL3, overrides)
    sha256 = hashlib.sha256((files / OPENL3_FILE).read_bytes()).hexdigest()
    assert "is not a published file" in messages.text
    assert sha256 in messages.text
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["featreg"])["source_sha256"] == sha256
    # It never passes for the published weights.
    assert whereabouts(WEIGHTS[OPENL3]) is None


def test_a_changed_file_is_converted_anew(tmp_path: Path, seeded: ModuleType) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **pca(seeded))
    first = locate("vggish_pca", {"vggish_pca": path})
    changed = pca(seeded) | {"pca_means": np.zeros((128, 1), np.float32)}
    np.savez(path, **changed)
    second = locate("vggish_pca", {"vggish_pca": path})
    assert first != second
    assert not load_file(second)["means"].any()
    assert_pca(first, seeded)


def test_a_safetensors_file_is_used_as_it_is(tmp_path: Path, seeded: ModuleType) -> None:
    made = locate("vggish_pca", {"vggish_pca": write_pca(tmp_path, pca(seeded))})
    own = tmp_path / "own.safetensors"
    own.write_bytes(made.read_bytes())
    assert locate("vggish_pca", {"vggish_pca": own}) == own


def test_the_folder_comes_before_the_cache(
    server: FileServer,
    files: Path,
    tmp_path: Path,
    seeded: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEATREG_WEIGHTS", str(files))
    assert_pca(locate("vggish_pca", {}), seeded)
    assert server.ranges == []
    # The openl3 package keeps its files unpacked.
    folder = tmp_path / "unpacked"
    folder.mkdir()
    packed = (files / OPENL3_FILE).read_bytes()
    (folder / OPENL3_FILE.removesuffix(".gz")).write_bytes(gzip.decompress(packed))
    monkeypatch.setenv("FEATREG_WEIGHTS", str(folder))
    assert "conv7.bias" in load_file(locate(OPENL3, {}))
    assert server.ranges == []
    # Our own form comes first, and what is not in the folder is fetched.
    save_file({"eigen_vectors": np.eye(128, dtype="f4"), "means": np.zeros(128, "f4")},
              folder / "vggish_pca.safetensors")  # fmt: skip
    assert locate("vggish_pca", {}) == folder / "vggish_pca.safetensors"


def test_a_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATREG_WEIGHTS", "/nowhere")
    with pytest.raises(FeatregError, match="FEATREG_WEIGHTS=/nowhere"):
        locate("vggish_pca", {})


@pytest.mark.parametrize(
    "option", ["vggish", "vggish=", "=file", "nothing=file", "vggish=/nowhere/x.pth"]
)
def test_a_wrong_weights_option_is_a_usage_error(option: str) -> None:
    with pytest.raises(UsageError, match=f"--weights {option}"):
        parse_overrides([option])
