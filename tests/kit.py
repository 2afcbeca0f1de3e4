"""Edge-case audio: every extractor and the pipeline meet all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from featreg.datasets.base import Clip, Dataset, Split


def tone(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> npt.NDArray[np.float32]:
    """A sine with a little noise, another pitch in every channel; (samples, channels)."""
    t = np.arange(round(seconds * rate))[:, None] / rate
    pitch = 220.0 * (1 + np.arange(channels)) * (1 + seed % 7)
    noise = np.random.default_rng(seed).standard_normal((len(t), channels))
    return (0.3 * np.sin(2 * np.pi * pitch * t) + 0.01 * noise).astype(np.float32)


def write(path: Path, samples: npt.NDArray[np.float32], rate: int, **options: str) -> Path:
    """Write audio; the format follows the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


def make_kit(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Files that must give rows, and files that must be refused, by name."""
    good = {
        "mono": write(folder / "mono.wav", tone(2.0, 16000), 16000),
        "stereo": write(folder / "stereo.wav", tone(2.0, 44100, 2), 44100),
        "eight-channels": write(folder / "eight.wav", tone(1.5, 48000, 8), 48000),
        "8k": write(folder / "8k.wav", tone(2.0, 8000), 8000),
        "22k-ogg": write(folder / "22k.ogg", tone(2.0, 22050), 22050),
        "96k-flac": write(folder / "96k.flac", tone(1.2, 96000), 96000),
        "1s": write(folder / "1s.wav", tone(1.0, 16000), 16000),
        "0.5s": write(folder / "half.wav", tone(0.5, 16000), 16000),
        "mp3": write(folder / "tone.mp3", tone(2.0, 44100), 44100),
    }
    nothing = folder / "zero-bytes.wav"
    nothing.touch()
    text = folder / "report.mp3"
    text.write_bytes(b"%PDF-1.4 this is no audio at all" * 40)
    broken = tone(1.0, 16000)
    broken[500] = np.nan
    infinite = tone(1.0, 16000)
    infinite[500] = np.inf
    bad = {
        "missing": folder / "nowhere.wav",
        "zero-bytes": nothing,
        "renamed-pdf": text,
        "no-samples": write(folder / "none.wav", np.empty((0, 1), np.float32), 16000),
        "one-sample": write(folder / "one.wav", tone(1.0, 16000)[:1], 16000),
        "nan": write(folder / "nan.wav", broken, 16000, subtype="FLOAT"),
        "inf": write(folder / "inf.wav", infinite, 16000, subtype="FLOAT"),
        "silent": write(folder / "silent.wav", np.zeros((16000, 1), np.float32), 16000),
    }
    for name in ("wav", "ogg", "flac", "mp3"):
        whole = write(folder / f"whole.{name}", tone(6.0, 44100), 44100).read_bytes()
        bad[f"truncated-{name}"] = folder / f"truncated.{name}"
        bad[f"truncated-{name}"].write_bytes(whole[: len(whole) // 2])
    return good, bad


def make_clip(path: Path, clip_id: str = "", split: Split = "train", classes: int = 2) -> Clip:
    """A clip of the file at `path`, every class annotated and the first one present."""
    label = np.eye(1, classes, dtype=np.uint8)[0]
    return Clip(clip_id or path.stem, path, split, label, np.ones(classes, np.uint8))


def make_dataset(folder: Path, counts: dict[Split, int], seconds: float = 1.3) -> Dataset:
    """A small dataset of tones: `counts` clips a split, 2 classes."""
    clips = []
    for split, count in counts.items():
        for k in range(count):
            path = folder / f"{split}-{k}.wav"
            write(path, tone(seconds + 0.1 * k, 22050, 1 + k % 2, seed=k), 22050)
            clips.append(make_clip(path, split=split))
    return Dataset("tones", ("low", "high"), tuple(clips))
