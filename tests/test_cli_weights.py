from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner
from file_server import FileServer
from weight_files import OPENL3, PCA_FILE, assert_pca

from featreg.datasets.base import FeatregError
from featreg.extract.cli.weights import weights as command
from featreg.extract.weights import self_check
from featreg.extract.weights.cache import cache, locate, whereabouts
from featreg.extract.weights.registry import WEIGHTS

pytest_plugins = ("weight_fixtures",)
pytestmark = pytest.mark.usefixtures("own_cache")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, arguments, prog_name="prep weights")
    return result.exit_code, result.output


def test_list_shows_address_hash_licence_and_state(server: FileServer) -> None:
    locate("vggish_pca", {})
    status, output = run("list")
    assert status == 0
    for known in WEIGHTS.values():
        assert known.name in output
        assert known.licence in output
        for item in known.published:
            assert item.source in output
            assert str(item.checksum or "the first download is recorded") in output
    assert f"vggish_pca           cached: {cache()}" in output
    assert f"{OPENL3}  missing" in output


def test_fetch_goes_on_after_a_failure_and_ends_with_1(server: FileServer) -> None:
    del server.files[f"/mirror/{PCA_FILE}"]
    status, output = run("fetch", "vggish_pca", OPENL3)
    assert status == 1
    assert whereabouts(WEIGHTS[OPENL3])
    assert str(locate(OPENL3, {})) in output


@pytest.mark.parametrize("arguments", [[], ["--all", "vggish"], ["vgish"]])
def test_fetch_of_nothing_known_is_wrong_usage(arguments: list[str]) -> None:
    assert run("fetch", *arguments)[0] == 2


def test_convert_writes_where_it_is_told(files: Path, tmp_path: Path, seeded: ModuleType) -> None:
    target = tmp_path / "pca.safetensors"
    status, output = run("convert", "vggish_pca", str(files / PCA_FILE), "--output", str(target))
    assert (status, output.splitlines()[-1]) == (0, str(target))
    assert_pca(target, seeded)


def test_a_converted_published_file_is_found_from_then_on(server: FileServer, files: Path) -> None:
    status, output = run("convert", "vggish_pca", str(files / PCA_FILE))
    assert status == 0
    assert str(locate("vggish_pca", {})) in output
    assert server.ranges == []


def test_verify_finds_a_flipped_bit(server: FileServer, messages: pytest.LogCaptureFixture) -> None:
    path = locate("vggish_pca", {})
    assert run("verify", "vggish_pca")[0] == 0
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert run("verify", "vggish_pca")[0] == 1
    assert "delete the file" in messages.text


def test_verify_of_what_is_not_here_fails() -> None:
    assert run("verify", OPENL3)[0] == 1


@pytest.mark.parametrize("name", ["list", "fetch", "convert", "verify"])
def test_every_help_ends_with_an_example(name: str) -> None:
    status, output = run(name, "--help")
    assert status == 0
    assert re.search(rf"Example:\n +prep weights {name}[^\n]*\n\nOptions:", output)


class StandIn:
    """An extractor whose outputs have the published mean and deviation, times `factor`."""

    factor = 1.0

    def __init__(self, output: str, _: object) -> None:
        self.output = output

    @staticmethod
    def Config(output: str) -> str:  # noqa: N802
        return output

    def extract(self, signal: np.ndarray) -> np.ndarray:
        assert signal.shape == (48000,)
        assert np.isclose(np.sum(signal**2), 24000)  # a unit sine over whole periods
        mean, deviation = self_check.PUBLISHED[self.output]
        return mean + self.factor * deviation * np.tile([-1.0, 1.0], (3, 64))


@pytest.mark.parametrize(("factor", "passes"), [(1.0, True), (1.09, True), (1.11, False)])
def test_the_self_check_allows_a_tenth(
    factor: float, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "factor", factor)
    monkeypatch.setattr(self_check, "Vggish", StandIn)
    if passes:
        assert len(self_check.vggish_self_check(Path("a"), Path("b"))) == 2
    else:
        with pytest.raises(FeatregError, match=r"deviation 0\.3807; published: 0\.000657, 0\.343"):
            self_check.vggish_self_check(Path("a"), Path("b"))
