"""Cost of an ONNX model and of a HEAR module through featreg, beside calling them alone.

    python benchmarks/schemes.py

A network with random weights, 0.5 GFLOP per second of audio (VGGish: 1.8), on files at its sample
rate, in batches of 16 windows (ONNX) or clip by clip (HEAR). Each contestant runs in its own
process, in turns with the other (`turns.py`); the ratio is the median over rounds of the ratio
within a round.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import soundfile
from turns import Contestant, Work, race, serve

RATE, CLIPS, SECONDS = 16000, 8, 16

MODULE = '''
import torch
from torch import nn

class Network(nn.Module):
    """Convolutions over the waveform, to frames of 20 ms."""

    sample_rate = 16000
    timestamp_embedding_size = scene_embedding_size = 512

    def __init__(self):
        super().__init__()
        sizes = ((1, 64, 80, 20), (64, 256, 8, 4), (256, 512, 8, 2), (512, 512, 8, 2))
        self.layers = nn.Sequential()
        for inside, outside, kernel, step in sizes:
            self.layers.append(nn.Conv1d(inside, outside, kernel, step, (kernel - step) // 2))
            self.layers.append(nn.ReLU())

    def forward(self, audio):
        return self.layers(audio[:, None]).mean(dim=2)

def load_model(path=""):
    torch.manual_seed(0)
    return Network().eval()

def get_timestamp_embeddings(audio, model):
    with torch.inference_mode():
        found = model.layers(audio[:, None]).transpose(1, 2)
    return found, 10 + 20 * torch.arange(found.shape[1])[None].expand(len(audio), -1)

def get_scene_embeddings(audio, model):
    return get_timestamp_embeddings(audio, model)[0].mean(dim=1)
'''


def write(folder: Path) -> None:
    """Write the audio, the HEAR module and the ONNX model."""
    import torch

    for clip in range(CLIPS):
        noise = 0.1 * np.random.default_rng(clip).standard_normal(SECONDS * RATE)
        soundfile.write(folder / f"{clip}.wav", noise, RATE)
    (folder / "hear_model.py").write_text(MODULE)
    sys.path.append(str(folder))
    import hear_model

    torch.onnx.export(
        hear_model.load_model(),
        (torch.zeros(2, RATE),),
        folder / "model.onnx",
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("n")},),
        input_names=["audio"],
        output_names=["embedding"],
        verbose=False,
    )


def signals(folder: Path) -> list[Any]:
    """The clips; each contestant reads them in each turn."""
    return [soundfile.read(path, dtype="float32")[0] for path in sorted(folder.glob("*.wav"))]


def onnx_alone(folder: Path, threads: int) -> Work:
    """onnxruntime, one clip of 16 windows at a time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "model.onnx", options)

    def work() -> Any:
        windows = (signal.reshape(-1, RATE) for signal in signals(folder))
        return np.concatenate([session.run(None, {"audio": each})[0] for each in windows])

    return work


def hear_alone(folder: Path, threads: int) -> Work:
    """The module, one clip at a time."""
    import torch

    sys.path.append(str(folder))
    import hear_model

    model = hear_model.load_model()

    def work() -> Any:
        clips = [torch.from_numpy(signal)[None] for signal in signals(folder)]
        found = [hear_model.get_timestamp_embeddings(clip, model)[0][0] for clip in clips]
        return torch.cat(found).numpy()

    return work


def through_featreg(source: str, **settings: object) -> Callable[[Path, int], Work]:
    """featreg, with the clips in common batches."""

    def prepare(folder: Path, threads: int) -> Work:
        import featreg

        sys.path.append(str(folder))
        request = f"x={source}".replace("FOLDER", str(folder))
        extractor = featreg.load_extractor(request, **settings)

        def work() -> Any:
            return np.concatenate([found for found, _ in extractor(signals(folder), RATE)])

        return work

    return prepare


CONTESTANTS = {
    "onnx/alone": onnx_alone,
    "onnx/featreg": through_featreg("onnx:FOLDER/model.onnx", rate=RATE),
    "hear/alone": hear_alone,
    "hear/featreg": through_featreg("hear:hear_model"),
}


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=15, help="Turns that each contestant has.")
@click.option("--threads", default=os.cpu_count() or 1, help="Threads, and cores, of each.")
def main(rounds: int, threads: int) -> None:
    """Compare the time of models through featreg with that of the models alone.

    Example: python benchmarks/schemes.py --rounds 5
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder)
        for task in ("onnx", "hear"):
            click.echo(f"{task}, {threads} threads")
            names = (f"{task}/alone", f"{task}/featreg")
            alone, ours = race(
                [Contestant("schemes.py", name, sys.executable, folder, threads) for name in names],
                rounds,
            )
            one, other = (np.load(folder / f"{task}-{who}.npy") for who in ("alone", "featreg"))
            np.testing.assert_allclose(other, one, atol=1e-5)
            ratio = float(np.median(np.array(ours.seconds) / np.array(alone.seconds)))
            click.echo(f"  alone      {min(alone.seconds):.3f} s")
            click.echo(f"  featreg    {min(ours.seconds):.3f} s   ratio {ratio:.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in CONTESTANTS:
        serve(CONTESTANTS)
    else:
        main()
