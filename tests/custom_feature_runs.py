"""Features from outside: eight clips, arrays made without featreg, and the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from kit import tone, write

from featreg.datasets.audio.decode import decode, resample
from featreg.datasets.collections.manifest import read
from featreg.datasets.shards.native import native_shard
from featreg.extract.cli.prep import prep
from featreg.train.cli.train import train

SPLITS = {"train": 4, "valid": 2, "test": 2}


def write_manifest(folder: Path) -> Path:
    """Eight clips of a second, in a CSV file: low tones and high ones."""
    rows = ["path,clip_id,split,low,high"]
    for split, count in SPLITS.items():
        for k in range(count):
            write(folder / f"{split}{k}.wav", tone(1.0 + 0.1 * k, 22050, seed=k), 22050)
            rows.append(f"{split}{k}.wav,{split}/{k},{split},{(k + 1) % 2},{k % 2}")
    path = folder / "tones.csv"
    path.write_text("\n".join(rows))
    return path


def run(work: Path, command: str, *arguments: object) -> Result:
    words = [*command.split(), "--work", str(work), *map(str, arguments)]
    return CliRunner().invoke({"prep": prep, "train": train}[words[0]], words[1:])


def rows_of(work: Path, feature: str) -> dict[str, np.ndarray]:
    found = {}
    for path in (work / "tones" / "native" / feature).glob("*.h5"):
        with native_shard(path) as shard:
            found |= {clip_id: shard.values(clip_id) for clip_id in shard.clip_ids}
    return found


def write_arrays(manifest: Path, folder: Path) -> dict[str, np.ndarray]:
    """Chroma of every clip as CLIP_ID.npy, made without featreg's extraction."""
    librosa = pytest.importorskip("librosa")
    arrays = {}
    for clip in read(manifest).clips:
        signal = resample(*decode(clip), 22050)
        chroma = librosa.feature.chroma_stft(y=signal, sr=22050, hop_length=1024, tuning=0.0)
        path = folder / f"{clip.clip_id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, chroma.T.astype(np.float64))
        arrays[clip.clip_id] = chroma.T.astype(np.float32)
    return arrays
