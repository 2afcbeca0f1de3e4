"""Requests of models of Hugging Face that cannot be met, and where models are looked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from kit import tone, write

transformers = pytest.importorskip("transformers")

import huggingface_hub  # noqa: E402
from huggingface_hub import errors  # noqa: E402
from huggingface_models import save  # noqa: E402

import featreg  # noqa: E402
from featreg.datasets.base import FeatregError, UsageError  # noqa: E402
from featreg.datasets.shards.native import native_shard  # noqa: E402
from featreg.extract.cli.prep import prep  # noqa: E402
from featreg.extract.extractors.huggingface_files import folder_of, pinned  # noqa: E402

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("wav2vec2", tmp_path_factory.mktemp("models") / "wav2vec2")


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy of a model, to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def describe(model: Path, **changes: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("layer", ["4", "-5", "2-1", "1-9", "first", "", "1-", "0.5"])
def test_a_layer_that_does_not_exist(saved: Path, layer: str) -> None:
    with pytest.raises(UsageError, match=r"x\.layer=.*from -4 to 3.*0-3.*last") as raised:
        featreg.load_extractor(f"x=hf:{saved}", layer=layer)
    assert f"layer={layer}:" in str(raised.value)


def test_settings_that_a_model_does_not_have(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x\.pooled=true: only AST.*wav2vec2"):
        featreg.load_extractor(f"x=hf:{saved}", pooled=True)
    with pytest.raises(UsageError, match=r"x\.layer=1: expected last"):
        featreg.load_extractor(f"x=hf:{save('clap', tmp_path)}", layer="1")
    with pytest.raises(UsageError, match=r"x\.depth: no such setting.*layer, pooled"):
        featreg.load_extractor(f"x=hf:{saved}", depth=1)


def test_a_model_of_another_type(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match=r"type bert; supported are wav2vec2.*CLAP"):
        featreg.load_extractor(f"x=hf:{model}")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_folder_without_one_of_the_files(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(UsageError, match=name.replace("model.", r"model\*\.")):
        featreg.load_extractor(f"x=hf:{model}")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": "wav2vec2", "conv_stride": 5}'])
def test_a_damaged_configuration(model: Path, text: str) -> None:
    (model / "config.json").write_text(text)
    with pytest.raises(UsageError, match=str(model)) as raised:
        featreg.load_extractor(f"x=hf:{model}")
    assert "\n" not in str(raised.value)


def test_weights_of_another_model(model: Path) -> None:
    describe(model, num_hidden_layers=5)
    extractor = featreg.load_extractor(f"x=hf:{model}")
    with pytest.raises(FeatregError, match=r"lack \d+ parameters.*encoder\.layers\.3"):
        extractor(np.ones(16000, np.float32), 16000)
    describe(model, num_hidden_layers=3, intermediate_size=80)
    with pytest.raises(FeatregError, match=str(model)):
        featreg.load_extractor(f"x=hf:{model}")(np.ones(16000, np.float32), 16000)


def test_damaged_weights(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(FeatregError, match=str(model)):
        featreg.load_extractor(f"x=hf:{model}")(np.ones(16000, np.float32), 16000)


OWN_CODE = """
from transformers import Wav2Vec2Config, Wav2Vec2Model


class OwnConfig(Wav2Vec2Config):
    model_type = "own_model"


class OwnModel(Wav2Vec2Model):
    config_class = OwnConfig
"""


def test_code_of_a_model_runs_only_on_request(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    expected, _ = featreg.load_extractor(f"x=hf:{model}")(np.ones(16000, np.float32), 16000)
    (model / "own_code.py").write_text(OWN_CODE)
    code = {"AutoConfig": "own_code.OwnConfig", "AutoModel": "own_code.OwnModel"}
    describe(model, model_type="own_model", auto_map=code)
    with pytest.raises(UsageError, match=r"Python code.*--set x\.trust_remote_code=true"):
        featreg.load_extractor(f"x=hf:{model}")
    extractor = featreg.load_extractor(f"x=hf:{model}", trust_remote_code=True)
    np.testing.assert_allclose(extractor(np.ones(16000, np.float32), 16000)[0], expected)
    before = extractor._extractor.weights_sha256
    (model / "own_code.py").write_text(OWN_CODE + "# edited\n")
    after = featreg.load_extractor(f"x=hf:{model}", trust_remote_code=True)
    assert after._extractor.weights_sha256 != before


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def list_files(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_files)


def hub_error(name: str) -> Exception:
    """An error of the hub, without the response of the server that it contains."""
    kind = getattr(errors, name)
    error: Exception = kind.__new__(kind)
    return error


@pytest.mark.parametrize(
    ("error", "named"),
    [
        ("RepositoryNotFoundError", "no such model.*hf auth login"),
        ("GatedRepoError", "access must be requested at .*lab/model"),
        ("RevisionNotFoundError", "no revision v9"),
        ("HFValidationError", "expected a folder, or the id"),
    ],
)
def test_a_model_that_the_hub_does_not_have(
    monkeypatch: pytest.MonkeyPatch, error: str, named: str
) -> None:
    fail_with(monkeypatch, hub_error(error))
    with pytest.raises(UsageError, match=f"lab/model@v9: .*{named}") as raised:
        featreg.load_extractor("x=hf:lab/model@v9")
    assert "\n" not in str(raised.value)


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    fail_with(monkeypatch, ConnectionError("no route"))
    with pytest.raises(UsageError, match=r"lab/model: .*cannot be reached.*hf download lab/model"):
        featreg.load_extractor("x=hf:lab/model")


@pytest.fixture
def hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """A hub with one model; the downloads that were asked for."""
    asked: list[tuple[str, Any]] = []
    folder = tmp_path / "snapshots" / COMMIT

    def snapshot(model: str, revision: str | None, **options: Any) -> str:
        if options.get("local_files_only"):
            if not folder.is_dir():
                raise hub_error("LocalEntryNotFoundError")
            return str(folder)
        asked.append((f"{model}@{revision}", options["allow_patterns"]))
        shutil.copytree(saved, folder, dirs_exist_ok=True)
        return str(folder)

    files = ["README.md", "config.json", "model-1.safetensors", "pytorch_model.bin", "tf_model.h5"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *a, **o: files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return asked


def test_a_model_is_pinned_to_a_commit(hub: list[tuple[str, Any]], saved: Path) -> None:
    extractor = featreg.load_extractor("x=hf:lab/model@main")
    assert hub == [("lab/model@main", ["*.json", "*.py", "model*.safetensors"])]
    assert extractor.settings["model"] == f"lab/model@{COMMIT}"
    signal = tone(1, 16000)
    np.testing.assert_array_equal(
        extractor(signal, 16000)[0], featreg.load_extractor(f"x=hf:{saved}")(signal, 16000)[0]
    )
    assert len(hub) == 1  # workers use the files that are here


def test_without_a_network_earlier_downloads_are_used(
    hub: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pinned("lab/model") == f"lab/model@{COMMIT}"
    fail_with(monkeypatch, ConnectionError("no route"))
    assert pinned("lab/model") == f"lab/model@{COMMIT}"
    assert folder_of(f"lab/model@{COMMIT}").name == COMMIT
    assert len(hub) == 1


def test_a_worker_without_the_files_downloads_them(hub: list[tuple[str, Any]]) -> None:
    assert folder_of(f"lab/model@{COMMIT}").name == COMMIT
    assert [model for model, _ in hub] == [f"lab/model@{COMMIT}"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(UsageError, match=r"needs the package transformers: .*'\.\[hf\]'"):
        pinned(str(saved))


def test_two_models_in_one_run(saved: Path, tmp_path: Path) -> None:
    lines = ["path,split,labels"]
    for k, split in enumerate(("train", "valid", "test")):
        write(tmp_path / f"{k}.wav", tone(1 + k, 16000), 16000)
        lines.append(f"{k}.wav,{split},x")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    features = f"a=hf:{saved},b=hf:{save('ast', tmp_path / 'ast')}"
    result = CliRunner().invoke(
        prep,
        ["extract", "--dataset", str(tmp_path / "mine.csv"), "--task", "single-label",
         "--features", features, "--set", "a.layer=1-2", "--workers", "1", "--device", "cpu",
         "--work", str(tmp_path / "work")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = {}
    for name in "ab":
        with native_shard(tmp_path / "work" / "mine" / "native" / name / "00000.h5") as shard:
            found[name] = shard.header
            assert sorted(shard.clip_ids) == ["0.wav", "1.wav", "2.wav"]
    assert found["a"].settings["layer"] == "1-2"
    assert len(found["a"].weights_sha256) == 64
    assert found["a"].weights_sha256 != found["b"].weights_sha256
