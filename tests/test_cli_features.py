from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from featreg.extract.cli.prep import prep
from featreg.extract.extractors.registry import FEATURES
from featreg.extract.weights.cache import cache
from featreg.extract.weights.registry import WEIGHTS


class Mean(torch.nn.Module):
    """The mean of each window."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return windows.mean(dim=1, keepdim=True)


pytest_plugins = ("weight_fixtures",)
pytestmark = pytest.mark.usefixtures("own_cache")


def run(*arguments: str) -> tuple[int, dict[str, str]]:
    """Exit status, and the printed description of each feature."""
    result = CliRunner().invoke(prep, ["features", *arguments], prog_name="prep")
    sections = re.split(r"^(?=\S)", result.output, flags=re.MULTILINE)[1:]
    return result.exit_code, {section.partition(":")[0]: section for section in sections}


def test_every_feature_is_described() -> None:
    status, found = run()
    assert status == 0
    assert list(found) == list(FEATURES)
    assert "753 dimensions every 0.976 s, from audio at 16,000 Hz" in found["musicnn"]
    assert "1 dimension every" in found["audio"]
    for weights in WEIGHTS.values():
        name = weights.family.partition("_")[0]
        for text in (weights.citation, weights.licence, weights.published[0].megabytes):
            assert f"{text}" in found[name]
        assert re.search(rf"\b{weights.name}, ", found[name])
    assert "efficientat-mn10, 20 MB, not present" in found["efficientat"]
    assert re.search(r"musicnn-msd, 29 MB, shipped: ", found["musicnn"])
    assert not any(" cost " in text for text in found.values())


def test_settings_select_dimension_weights_and_training_data() -> None:
    _, found = run("--set", "efficientat.model=mn04", "--set", "musicnn.model=MTT")
    assert "efficientat: 384 dimensions" in found["efficientat"]
    names = re.findall(r"weights +(\S+),", found["efficientat"])
    assert names[0] == "efficientat-mn04"
    assert len(names) == len({*names}) == 6
    assert "trained on MagnaTagATune" in found["musicnn"]


def test_weights_in_the_folder_of_the_user_are_found() -> None:
    cache().mkdir(parents=True)
    (known,) = (each for each in WEIGHTS["vggish_pca"].published if each.file.endswith(".npz"))
    assert known.checksum is not None
    file = cache() / f"vggish_pca-{known.checksum.value[:16]}.safetensors"
    file.touch()
    assert f"vggish_pca, 0.1 MB, cached: {file}" in run()[1]["vggish"]


def test_the_cost_is_measured_where_weights_are_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featreg.extract.cli.features.MEASURED_S", 3)
    _, found = run("audio", "musicnn", "openl3", "--measure")
    measured = {name for name in found if re.search(r"cost +[\d.,]+ core seconds", found[name])}
    assert list(found) == ["audio", "musicnn", "openl3"]
    assert measured == {"audio", "musicnn"}


def test_models_of_the_user_are_described(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Mean()), str(tmp_path / "mean.ts"))
    settings = ["--set", "loud.rate=8000", "--set", "loud.window=0.5"]
    status, found = run(f"loud=ts:{tmp_path / 'mean.ts'}", *settings, "--measure")
    assert status == 0
    assert list(found) == ["loud"]
    assert found["loud"].startswith("loud: 1 dimension every 0.5 s, from audio at 8,000 Hz\n")
    assert "core seconds" in found["loud"]
    assert "weights" not in found["loud"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nothing"], "nothing"),
        (["--set", "nothing.a=1"], "nothing"),
        (["--set", "musicnn.hope=1"], "musicnn.hope"),
        (["--set", "musicnn"], "--set musicnn"),
        (["musicnn", "--set", "openl3.hop=1"], "openl3 is not among musicnn"),
    ],
)
def test_unknown_settings_are_wrong_usage(
    arguments: list[str], named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    result = CliRunner().invoke(prep, ["features", *arguments])
    assert result.exit_code == 2
    assert named in result.stderr + capfd.readouterr().err
