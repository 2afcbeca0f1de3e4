"""Probes: pooled features, their fit, and the command as it is typed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import CONREG, made_up_run
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from synthetic import header, write_toy
from toy_runs import CONREG as NETWORK
from toy_runs import call

from featreg.train.config.config import PROBE_RECIPE, Config, Probe
from featreg.train.data.aligned_set import AlignedSet, Clips
from featreg.train.data.clip_reader import ClipReader
from featreg.train.deploy.model_file import read_model
from featreg.train.evaluation.metrics import METRICS
from featreg.train.evaluation.predict import pooled_features
from featreg.train.experiments.compare import load
from featreg.train.experiments.differences import ceilings, differences
from featreg.train.models.probe import POOLS, pool_frames
from featreg.train.models.probe import Probe as Network
from featreg.train.training.fit_probe import GRID, Pooled, fit_probe
from featreg.train.training.run import run
from featreg.train.training.run_dir import RunDir

NAME = "toy-probe-tones+noise-s0"


@pytest.fixture(scope="module", params=["multi-label", "single-label"])
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    write_toy(
        folder, {"train": (20,), "valid": (9,), "test": (9,)}, about=header(task=request.param)
    )
    result = call(folder, "probe")
    assert result.exit_code == 0, result.output
    return folder


def test_pooling_is_numpys() -> None:
    frames = np.random.default_rng(0).standard_normal((2, 7, 3)).astype(np.float32)
    expected = {
        "mean": frames.mean(1),
        "mean+std": np.concatenate([frames.mean(1), frames.std(1)], 1),
        "max": frames.max(1),
    }
    for pool in POOLS:
        found = pool_frames(torch.from_numpy(frames), pool).numpy()
        np.testing.assert_allclose(found, expected[pool], atol=1e-6)


def test_one_frame_has_no_deviation() -> None:
    assert pool_frames(torch.ones(1, 1, 2), "mean+std").tolist() == [[1, 1, 0, 0]]


def test_a_run_folder_like_a_networks(work: Path) -> None:
    folder = RunDir(work / "runs" / NAME)
    folder.verify()
    report, about = folder.read_json("report.json"), folder.read_json("config.json")
    files = {"metrics.csv", "predictions.csv", "embeddings.npz", "model.safetensors"}
    assert set(report["files"]) == files
    assert about["config"]["probe"] == {"kind": "logistic", "pool": "mean"}
    assert about["config"]["recipe"] == {"feature_norm": "standardize", "precision": "float32"}
    assert folder.config() == Config.from_json(about["config"])
    assert about["data"]["clips"] == {"train": 20, "valid": 9, "test": 9}
    assert about["parameters"]["inference"] == 7 * 3 + 3
    tried = pd.read_csv(folder.path / "metrics.csv")
    np.testing.assert_allclose(tried["C"], GRID)
    metric = f"valid_{folder.config().metric}"
    best = tried.iloc[report["best_epoch"] - 1]
    assert best[metric] == tried[metric].max()
    alike = tried[tried[metric] == best[metric]]
    assert best["validation_loss"] == alike["validation_loss"].min()
    # One dimension of the features is the label with little noise.
    assert report["test"]["roc_auc"] == 1


def test_predictions_are_scikit_learns(work: Path) -> None:
    folder = RunDir(work / "runs" / NAME)
    aligned = AlignedSet(work / "toy/aligned/tones+noise-0.1s")
    pooled = {
        split: pooled_features(
            ClipReader(aligned.split(split), aligned.dims(("tones", "noise"))), "mean"
        )
        for split in ("train", "test")
    }
    scaler = StandardScaler().fit(pooled["train"].double())
    tried = pd.read_csv(folder.path / "metrics.csv")
    C = tried["C"].iloc[folder.read_json("report.json")["best_epoch"] - 1]
    x, tested = (scaler.transform(pooled[split].double()) for split in ("train", "test"))
    label = aligned.split("train").label
    if aligned.task == "single-label":
        model = LogisticRegression(C=C, max_iter=5000, tol=1e-8).fit(x, label.argmax(1))
        expected = model.predict_proba(tested)
    else:
        models = [LogisticRegression(C=C, max_iter=5000, tol=1e-8).fit(x, y) for y in label.T]
        expected = np.stack([model.predict_proba(tested)[:, 1] for model in models], 1)
    found = pd.read_csv(folder.path / "predictions.csv")[["low", "middle", "high"]]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_stored_model_gives_the_predictions(work: Path) -> None:
    folder = RunDir(work / "runs" / NAME)
    with safe_open(folder.path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == {"mean", "std", "head.weight", "head.bias"}
    _, card = read_model(folder.path / "model.safetensors")
    assert (card.fusion, card.samples) == ("probe", 48000)
    result = call(work, "eval", NAME, "--format", "json")
    assert result.exit_code == 0, result.output
    report = folder.read_json("report.json")
    assert report["test"] == json.loads(result.stdout)["metrics"]


@pytest.mark.parametrize("options", [(), ("--mlp",)])
def test_a_second_run_gives_the_same(work: Path, options: tuple[str, ...]) -> None:
    names = [f"{name}{len(options)}" for name in ("one", "two")]
    for name in names:
        assert call(work, "probe", "--run-name", name, *options).exit_code == 0
    one, two = (read_model(work / "runs" / name / "model.safetensors")[0] for name in names)
    for name, values in one.state_dict().items():
        assert torch.equal(values, two.state_dict()[name]), name
    again = call(work, "probe", "--run-name", names[0], *options)
    assert again.exit_code == 0
    assert "already finished" in again.output


def test_the_options_make_the_name(work: Path) -> None:
    arguments = ("--mlp", "--pool", "mean+std", "--features", "noise", "--fraction", "0.5")
    assert call(work, "probe", *arguments).exit_code == 0
    folder = RunDir(work / "runs" / "toy-mlp-probe-noise-fraction0.5-poolmean+std-s0")
    about = folder.read_json("config.json")
    assert about["data"]["clips"]["train"] == 10
    assert about["parameters"]["inference"] == (6 * 128 + 128) + (128 * 3 + 3)
    assert list(pd.read_csv(folder.path / "metrics.csv")["weight_decay"].unique()) == [0.01, 0.1, 1]


def clips(label: np.ndarray, mask: np.ndarray) -> Clips:
    n = len(label)
    numbers = np.zeros((n, 2), np.int64)
    names = np.array([f"c{k}" for k in range(n)])
    return Clips(
        (), names, label.astype(np.uint8), mask.astype(np.uint8), np.zeros(n, np.int64),
        names, np.full(n, -1), numbers, numbers,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_labels_that_are_masked_have_no_influence(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((40, 3)).astype(np.float32))
    label = (x.numpy()[:, :2] > 0).astype(np.uint8)
    mask = (rng.random((40, 2)) < 0.5).astype(np.uint8)
    weights = []
    for hidden_labels in (label, np.where(mask, label, 1 - label)):
        torch.manual_seed(0)
        probe = Network(3, 2, hidden=4 if kind == "mlp" else 0)
        data = Pooled(clips(hidden_labels, mask), x)
        fit_probe(probe, kind, data, data, "multi-label", METRICS["pr_auc"], 0)
        weights.append(probe.state_dict())
    for name, values in weights[0].items():
        assert torch.equal(values, weights[1][name]), name


def test_a_class_without_examples_is_a_constant() -> None:
    x = torch.linspace(-1, 1, 10)[:, None]
    label = np.stack([np.arange(10) > 4, np.zeros(10), np.ones(10)], 1)
    probe, data = Network(1, 3), Pooled(clips(label, np.ones((10, 3))), x)
    fit_probe(probe, "logistic", data, data, "multi-label", METRICS["f1_micro"], 0)
    bias, weight = probe.state_dict()["head.bias"], probe.state_dict()["head.weight"]
    assert weight[1:].tolist() == [[0], [0]]
    assert bias[1:].tolist() == pytest.approx([np.log(1 / 11), np.log(11)])
    single = np.eye(3)[(np.arange(10) > 4) * 2]
    data = Pooled(clips(single, np.ones((10, 3))), x)
    fit_probe(probe, "logistic", data, data, "single-label", METRICS["accuracy"], 0)
    chosen = probe.classify(x).logits.softmax(1)
    assert chosen[:, 1].max() < 1e-9
    assert (chosen.argmax(1).numpy() == single.argmax(1)).all()


@pytest.mark.parametrize(
    ("arguments", "status", "facts"),
    [
        (("--features", "openl3"), 2, ["openl3", "tones, noise"]),
        (("--fraction", "2"), 2, ["--fraction 2"]),
        (("--metric", "loss"), 2, ["--metric loss"]),
        (("--pool", "median"), 2, ["median"]),
        (("--dataset", "mtat"), 2, ["mtat"]),
    ],
)
def test_wrong_options_are_named(
    work: Path, arguments: tuple[str, ...], status: int, facts: list[str]
) -> None:
    result = call(work, "probe", *arguments)
    assert result.exit_code == status
    assert len(result.output.splitlines()) <= 4
    for fact in facts:
        assert fact in result.output


def test_too_few_labels_are_named(tmp_path: Path) -> None:
    write_toy(tmp_path, about=header(task="single-label"))
    result = call(tmp_path, "probe", "--fraction", "0.05")
    assert result.exit_code == 1
    assert "1 annotated clips of 1 classes" in result.output
    assert not (tmp_path / "runs" / "toy-probe-tones+noise-fraction0.05-s0/config.json").exists()


def test_a_probe_of_unknown_features_names_them(work: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    result = call(work, "predict", tmp_path / "a.wav", "--run", NAME)
    assert result.exit_code == 1
    assert "probe" in result.output
    assert "tones" in result.output


def test_compare_shows_networks_and_probes(tmp_path: Path) -> None:
    write_toy(tmp_path)
    run(NETWORK, tmp_path)
    run(replace(NETWORK, reg="none", features=(), alpha=0.0), tmp_path)
    assert call(tmp_path, "probe").exit_code == 0
    result = call(tmp_path, "compare")
    assert result.exit_code == 0, result.output
    assert "Probe (tones+noise)" in result.output
    page = (tmp_path / "reports" / "toy.html").read_text()
    assert "Probe (tones+noise)" in page
    assert re.search(r"C [\d.e-]+,\s+\d+ s", page)
    only = call(tmp_path, "compare", "toy-probe-tones+noise-s0")
    assert only.exit_code == 0, only.output


def test_the_probe_is_the_ceiling(tmp_path: Path) -> None:
    made_up_run(tmp_path, 0, 0.5)
    made_up_run(tmp_path, 0, 0.65, **CONREG)
    probe = {"fusion": "features", "features": ("musicnn",), "recipe": PROBE_RECIPE}
    made_up_run(tmp_path, 0, 0.7, valid=0.9, **probe, probe=Probe())
    made_up_run(tmp_path, 0, 0.9, valid=0.8, **probe, probe=Probe("mlp"))
    made_up_run(tmp_path, 0, 0.99, **probe, probe=Probe(), fraction=0.5)
    groups, _ = load(tmp_path, [], None)
    (sentence,) = ceilings(groups)
    assert "75% of the way" in sentence
    assert "Probe (musicnn) (0.700)" in sentence
    better = [each for each in differences(groups) if each.startswith("Probe (musicnn) is")]
    assert "0.200 better than baseline" in better[0]


def test_clips_without_labels_count_in_the_statistics_alone(tmp_path: Path) -> None:
    write_toy(tmp_path)
    assert call(tmp_path, "probe", "--label-fraction", "0.5").exit_code == 0
    folder = RunDir(tmp_path / "runs" / "toy-probe-tones+noise-labels0.5-s0")
    counts = folder.read_json("config.json")["data"]["clips"]
    assert counts == {"train": 8, "unlabelled": 8, "valid": 8, "test": 9}
    tagger, _ = read_model(folder.path / "model.safetensors")
    aligned = AlignedSet(tmp_path / "toy/aligned/tones+noise-0.1s")
    reader = ClipReader(aligned.split("train"), aligned.dims(("tones", "noise")))
    mean = pooled_features(reader, "mean").mean(0)
    np.testing.assert_allclose(tagger.state_dict()["mean"], mean, rtol=1e-5)
