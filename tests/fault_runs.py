"""What tests of faults extract: a manifest of tones with a small feature."""

from __future__ import annotations

from pathlib import Path

from kit import tone, write

CLIPS = 24
FEATURES = "loudness:Loudness"


def make_manifest(folder: Path, names: list[str]) -> Path:
    """Clips of these names, tones all; and the manifest that lists them."""
    lines = ["path,labels,split"]
    for k, name in enumerate(names):
        write(folder / f"{name}.wav", tone(0.8 + 0.05 * k, 22050, 1 + k % 2, seed=k), 22050)
        lines.append(f"{name}.wav,{'low' if k % 2 else 'high'},train")
    path = folder / "tones.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def extract(manifest: Path, workers: int = 1) -> list[object]:
    return ["extract", "--dataset", manifest, "--allow-missing", "--features", FEATURES,
            "--shard-clips", 2, "--workers", workers, "--device", "cpu"]  # fmt: skip
