"""Run folders with given results, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from click.testing import CliRunner

from featreg.train.cli.train import train
from featreg.train.config.config import Config
from featreg.train.config.presets import PRESETS
from featreg.train.experiments.compare import Result
from featreg.train.training.run_dir import RunDir

CLASSES = ["piano", "flute", "drums", "banjo"]


def made_up_run(
    work: Path, seed: int, pr_auc: float, valid: float | None = None, **changes: Any
) -> RunDir:
    """A finished run with the metrics that are asked for; its predictions are perfect."""
    valid = pr_auc if valid is None else valid
    values: dict[str, Any] = {
        "dataset": "demo",
        "aligned": "musicnn-0.1s",
        "preset": "demo",
        "reg": "none",
        "fusion": "none",
        "features": (),
        "alpha": 0.0,
        "fraction": 1.0,
        "seed": seed,
        "metric": "pr_auc",
        "devices": 1,
        "recipe": PRESETS["demo"],
    }
    config = Config(**{**values, **changes})
    folder = RunDir(work / "runs" / config.run_name)
    folder.path.mkdir(parents=True)
    folder.write_json(
        "config.json",
        {
            "config": config.to_json(),
            "fingerprint": "f",
            "data": {
                "dataset": config.dataset,
                "task": "multi-label",
                "fingerprint": "0123456789abcdef0123",
                "clips": {"train": round(5 * config.fraction), "valid": 6, "test": 40},
                "classes": CLASSES,
                "notes": ["Notes are <b>escaped</b>."],
            },
            "parameters": {"training": 1200, "inference": 1000},
            "command": "train run --reg none",
            "started": "2026-01-01T00:00:00+00:00",
            "versions": {"featreg": "0.1.0", "torch": "2.13.0", "python": "3.11"},
            "machine": {"device": "cpu"},
        },
    )
    epochs = np.arange(1, 4)
    curves = {"epoch": epochs, "task_loss": 1 / epochs, "valid_pr_auc": valid * epochs / 3}
    pd.DataFrame(curves).to_csv(folder.path / "metrics.csv", index=False)
    rng, names = np.random.default_rng(seed), [f"c{k}" for k in range(40)]
    label = np.tile(np.eye(4, dtype=np.uint8), (10, 1)) * np.array([1, 1, 1, 0], np.uint8)
    np.savez(
        folder.path / "embeddings.npz",
        clip_id=np.array(names),
        embedding=rng.standard_normal((40, 8)).astype(np.float32),
        label=label,
        label_mask=np.ones((40, 4), np.uint8),
    )
    predictions = pd.DataFrame(label.astype(float), columns=CLASSES, index=names)
    predictions.to_csv(folder.path / "predictions.csv", index_label="clip_id")
    scores = [
        {"name": name, "annotated": 40, "positives": 10, "pr_auc": pr_auc, "roc_auc": 0.9}
        for name in CLASSES[:3]
    ] + [{"name": "banjo", "annotated": 40, "positives": 0, "pr_auc": None, "roc_auc": None}]
    folder.write_json(
        "report.json",
        {
            "best_epoch": 3,
            "valid": {"pr_auc": valid},
            "test": {"pr_auc": pr_auc, "roc_auc": 0.9},
            "intervals": {"pr_auc": [pr_auc - 0.1, pr_auc + 0.1], "roc_auc": [0.8, 1.0]},
            "classes": scores,
            "undefined": {"pr_auc": ["banjo"], "roc_auc": ["banjo"]},
            "seconds": 12.3,
        },
    )
    return folder


def rewrite_report(run: RunDir, **changes: Any) -> None:
    """Write a run's report again, with the checksums that its files have now."""
    run.write_json("report.json", run.read_json("report.json") | changes)


CONREG: dict[str, Any] = {"reg": "conreg", "features": ("musicnn",), "alpha": 0.3}


def make_up_runs(work: Path) -> None:
    """Two seeds of the baseline and of Con-Reg, which is better on each."""
    for seed, plain, regularized in ((0, 0.5, 0.6), (1, 0.6, 0.72)):
        made_up_run(work, seed, plain)
        made_up_run(work, seed, regularized, **CONREG)


def on_other_data(run: RunDir, keep: np.ndarray, classes: list[str] = CLASSES) -> None:
    """Change a run's data to those of its test clips at `keep`."""
    about = run.read_json("config.json")
    about["data"] |= {"fingerprint": "other", "classes": classes}
    run.write_json("config.json", about)
    arrays = Result(run).embeddings()
    np.savez(run.path / "embeddings.npz", **{name: each[keep] for name, each in arrays.items()})
    report = run.read_json("report.json")
    for row, name in zip(report["classes"], classes, strict=True):
        row["name"] = name
    run.write_json("report.json", report)


def page_of(work: Path, *arguments: str) -> str:
    """The page that `train compare` writes."""
    target = work / "page.html"
    result = CliRunner().invoke(
        train, ["compare", *arguments, "--report", str(target), "--work", str(work)]
    )
    assert result.exit_code == 0, result.output
    return target.read_text()
