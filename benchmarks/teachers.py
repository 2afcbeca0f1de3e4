"""Accuracy of linear probes on features, by the share of the training clips with labels.

    python benchmarks/teachers.py --set efficientat.model=mn04 --work featreg-work
    python benchmarks/teachers.py --clips clips.csv --features musicnn

Features are extracted with `prep extract` to a working folder; a second call reuses them. A probe
is a logistic regression on the mean over time of a clip's frames, standardized on the labelled
clips; C is the value with the best accuracy on the validation split. For comparison, the mean and
deviation over time of 64 log-mel bands. Shares below 100 % are drawn five times. Accuracy and
macro average precision are those of the test split, as mean over the draws; behind it their 95 %
interval by bootstrap over the sources of the test clips (over the clips, if the CSV has no column
`source`), and the deviation over the draws.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featreg.datasets.shards.native import native_shard
from featreg.datasets.shards.native_index import shard_paths
from featreg.extract.extractors.feature_options import parse_names
from featreg.extract.extractors.mel import mel_filterbank
from featreg.train.evaluation.bootstrap import draws, interval, resampled
from featreg.train.evaluation.metrics import METRICS

Floats = npt.NDArray[np.floating[Any]]

CLIPS = Path(__file__).parents[2] / "shared" / "data" / "urbansound8k" / "clips.csv"
SHOWN = {"accuracy": "accuracy", "pr_auc": "macro AP"}
STRENGTHS = 10.0 ** np.arange(-5, 2)
# Of the log-mel spectrogram: 25 ms of 16 kHz audio every 10 ms.
N_FFT, HOP, BANDS = 400, 160, 64


def log_mel_statistics(signal: Floats) -> Floats:
    """Mean and deviation over time of a log-mel spectrogram, shape (128,)."""
    padded = np.pad(signal, (0, max(0, N_FFT - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(N_FFT))) ** 2
    mel = np.log(power @ mel_filterbank(16000, N_FFT, BANDS, 0, 8000, "htk", None).T + 1e-6)
    return np.concatenate((mel.mean(axis=0), mel.std(axis=0)))


def read_vectors(folder: Path, clip_ids: Sequence[str]) -> Floats:
    """One vector per clip from the native shards of a feature, shape (clips, values)."""
    found = {}
    for path in shard_paths(folder):
        with native_shard(path) as shard:
            for clip_id in shard.clip_ids:
                values = shard.values(clip_id)
                found[clip_id] = (
                    log_mel_statistics(values[:, 0]) if folder.name == "audio" else values.mean(0)
                )
    return np.stack([found[clip_id] for clip_id in clip_ids])


def fit_probe(
    vectors: dict[str, Floats], label: dict[str, npt.NDArray[np.intp]], labelled: npt.ArrayLike
) -> Floats:
    """Probabilities of the test clips, shape (clips, classes), of a probe on `labelled`."""
    x, y = vectors["train"][labelled], label["train"][labelled]
    probes = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300)).fit(x, y)
        for c in STRENGTHS
    ]
    best = max(probes, key=lambda probe: probe.score(vectors["valid"], label["valid"]))
    probability = np.zeros((len(vectors["test"]), 1 + max(map(np.max, label.values()))))
    probability[:, best.classes_] = best.predict_proba(vectors["test"])
    return probability


@click.command(context_settings={"show_default": True})
@click.option("--clips", type=click.Path(exists=True, path_type=Path), help=f"CSV.  [{CLIPS}]")
@click.option("--features", default="efficientat,musicnn", help="As for prep extract.")
@click.option("--set", "assignments", multiple=True, help="As for prep extract.")
@click.option("--weights", multiple=True, help="As for prep extract.")
@click.option("--work", default="featreg-work", type=click.Path(path_type=Path), help="Folder.")
@click.option("--share", "shares", multiple=True, type=float, default=(5, 10, 30, 100), help="%.")
@click.option("--draws", "repeats", default=5, help="Draws of each share below 100 %.")
@click.option("--workers", default=1, help="As for prep extract.")
def main(
    clips: Path | None,
    features: str,
    assignments: Sequence[str],
    weights: Sequence[str],
    work: Path,
    shares: Sequence[float],
    repeats: int,
    workers: int,
) -> None:
    """Train linear probes on each feature, and print their accuracy on the test split.

    Example: python benchmarks/teachers.py --clips clips.csv --features musicnn
    """
    if clips is None and not CLIPS.exists():
        click.echo(f"{CLIPS} not found: name the CSV of a single-label dataset with --clips")
        return
    clips = clips or CLIPS
    command = [sys.executable, "-c", "from featreg.extract.cli.prep import prep; prep()", "extract"]
    command += ["--dataset", str(clips), "--task", "single-label", "--features", features]
    command += ["--work", str(work), "--workers", str(workers)]
    command += [f"--set={each}" for each in assignments] + [f"--weights={each}" for each in weights]
    if status := subprocess.run(command, stdout=sys.stderr).returncode:
        sys.exit(status)

    table = pd.read_csv(clips, dtype=str).set_index("clip_id", drop=False)
    table["class"] = pd.Categorical(table["labels"]).codes
    of = {split: table[table["split"] == split] for split in ("train", "valid", "test")}
    label = {split: rows["class"].to_numpy(np.intp) for split, rows in of.items()}
    source = pd.factorize(of["test"]["source" if "source" in table else "clip_id"])[0]
    counts = draws(source.max() + 1)[source]
    truth = np.eye(table["class"].max() + 1, dtype=np.uint8)[label["test"]]
    mask = np.ones_like(truth)
    click.echo(
        f"{clips.stem}: {', '.join(f'{len(rows):,} {split}' for split, rows in of.items())} clips, "
        f"{source.max() + 1} sources in test"
    )
    names = [word.partition("=")[0].rpartition(":")[2] for word in parse_names(features)]
    warnings.simplefilter("ignore", ConvergenceWarning)
    for name in ("audio", *names):
        folder = work / clips.stem / "native" / name
        vectors = {split: read_vectors(folder, [*rows["clip_id"]]) for split, rows in of.items()}
        values = f"{vectors['test'].shape[1]} values"
        click.echo(f"{name}, {values}" if name != "audio" else f"log-mel statistics, {values}")
        for share in shares:
            count = round(len(label["train"]) * share / 100)
            measured, samples = [], []
            for seed in range(repeats if share < 100 else 1):
                drawn = np.random.default_rng(seed).permutation(len(label["train"]))[:count]
                probability = fit_probe(vectors, label, drawn)
                measured.append({key: METRICS[key](truth, probability, mask) for key in SHOWN})
                samples.append(resampled(truth, probability, mask, counts, "single-label"))
            shown = []
            for key, title in SHOWN.items():
                each = np.array([one[key] for one in measured])
                drawn_means = np.mean([one[key] for one in samples], axis=0)
                low, high = interval(drawn_means, float(each.mean()))
                spread = f" ± {100 * each.std(ddof=1):.1f}" if len(each) > 1 else ""
                limits = f"{100 * low:.1f} to {100 * high:.1f}"
                shown.append(f"{title} {100 * each.mean():.1f}{spread} % ({limits})")
            click.echo(f"  {share:g} %, {count:,} labelled: {'; '.join(shown)}")


if __name__ == "__main__":
    main()
