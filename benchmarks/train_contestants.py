"""Training tasks that `train.py` compares; each runs alone in its own process (`turns.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from turns import Work, serve

BATCH, SAMPLES, CLASSES = 16, 80_000, 50
FEATURES = {"vggish": 128, "openl3": 512}
# Number of crops that a loader returns per turn, and of files decoded per turn.
CROPS, FILES = 4096, 64


def published_step(folder: Path, threads: int) -> Work:
    """One step of the published network: eager, float32, channels first."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, pool: Any, residual: bool) -> None:
            super().__init__()
            self.conv_1 = nn.Conv2d(inputs, outputs, 3, padding=1)
            self.bn_1 = nn.BatchNorm2d(outputs)
            if residual:
                self.conv_2 = nn.Conv2d(outputs, outputs, 3, padding=1)
                self.bn_2 = nn.BatchNorm2d(outputs)
            self.residual, self.pool = residual, nn.MaxPool2d(pool)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.bn_1(self.conv_1(x)))
            if self.residual:
                y = F.relu(self.bn_2(self.conv_2(y)) + x)
            pooled: Tensor = self.pool(y)
            return pooled

    class Published(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Parameter(torch.ones(1))
            self.norm = nn.BatchNorm2d(6)
            widths = [(6, 128), *[(128, 128)] * 3, (128, 256), *[(256, 256)] * 2]
            pools = [2] * 5 + [(2, 3)] * 2
            self.blocks = nn.Sequential(
                *(
                    Block(*width, pool, residual=width[0] == width[1])
                    for width, pool in zip(widths, pools, strict=True)
                )
            )
            self.head = nn.Sequential(
                nn.Linear(256, 256),
                nn.BatchNorm1d(256),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(256, CLASSES),
                nn.Sigmoid(),
            )
            level, harmonic = torch.arange(128), torch.arange(1, 7)
            self.center = (harmonic[:, None] * 32.7 * 2 ** (level / 24)).flatten()[None]
            self.bins = torch.linspace(0, 8000, 257)[:, None]
            self.window = torch.hann_window(513)

        def forward(self, audio: Tensor) -> Tensor:
            spectrum = torch.stft(audio, 513, 256, window=self.window, return_complex=True)
            power = spectrum.abs().pow(2)
            width = (0.1079 * self.center + 24.7) / self.q
            up = self.bins * (2 / width) + 1 - 2 * self.center / width
            down = self.bins * (-2 / width) + 1 + 2 * self.center / width
            filters = torch.clamp(torch.minimum(up, down), min=0)
            energy = torch.matmul(power.transpose(1, 2), filters).transpose(1, 2)
            level = 10 * torch.log10(energy.clamp(min=1e-10)).view(len(audio), 6, 128, -1)
            embedding = self.blocks(self.norm(level)).squeeze(2)
            tags: Tensor = self.head(embedding.amax(2))
            return tags

    torch.manual_seed(0)
    model = Published().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, weight_decay=1e-4)
    audio = 0.1 * torch.randn(BATCH, SAMPLES)
    label = (torch.rand(BATCH, CLASSES) < 0.05).float()

    def work() -> None:
        optimizer.zero_grad()
        F.binary_cross_entropy(model(audio), label).backward()
        optimizer.step()

    return work


def featreg_step(
    precision: str, reg: str = "none", unlabelled: int = 0
) -> Callable[[Path, int], Work]:
    """One step of ``train run --preset mtat``, with unlabelled clips in addition to the batch."""

    def prepare(folder: Path, threads: int) -> Work:
        import torch
        from lightning.fabric import Fabric

        from featreg.datasets.allocator import keep_memory
        from featreg.train.config.presets import PRESETS
        from featreg.train.config.schedule import Schedule
        from featreg.train.data.crops import Batch
        from featreg.train.models.registry import build_encoder, build_tagger
        from featreg.train.regularizers.registry import build_regularizer
        from featreg.train.training.objective import Objective

        keep_memory()
        names = {"float32": "32-true"}
        fabric = Fabric(accelerator="cpu", precision=names.get(precision, precision))
        torch.manual_seed(0)
        encoder = build_encoder("harmonic_cnn", time_pools=(3, 3), samples=SAMPLES)
        tagger = build_tagger("none", encoder, 0, CLASSES)
        dim = sum(FEATURES.values())
        regularizer = build_regularizer(reg, dim, encoder.dim)
        recipe = PRESETS["mtat"]
        losses = Objective(tagger, regularizer, 5.0, "multi-label", unlabelled)
        objective: Any = fabric.setup_module(losses)
        schedule = Schedule(recipe.schedule, recipe.epochs, recipe.lr)
        optimizer: Any = fabric.setup_optimizers(schedule.optimizer(0, objective.parameters()))
        objective.train()
        clips = BATCH + unlabelled
        label = (torch.rand(clips, CLASSES) < 0.05).float()
        batch = Batch(
            0.1 * torch.randn(clips, SAMPLES),
            torch.randn(clips, 50, dim),
            label,
            torch.ones_like(label),
            torch.arange(clips),
        )

        def work() -> None:
            optimizer.zero_grad()
            fabric.backward(objective(batch).total)
            optimizer.step()

        return work

    return prepare


def featreg_loader(features: tuple[str, ...]) -> Callable[[Path, int], Work]:
    """Random crops from aligned shards, read by one thread per core."""

    def prepare(folder: Path, threads: int) -> Work:
        from featreg.datasets.allocator import keep_memory
        from featreg.train.data.aligned_set import AlignedSet
        from featreg.train.data.crops import Crops, Cutter, EpochOrder, crop_loader

        keep_memory()  # as `train run` does
        aligned = AlignedSet(folder / "aligned")
        clips = aligned.split("train")
        crops = Crops(Cutter(aligned, clips, features, SAMPLES), 0)
        order = EpochOrder(len(clips), BATCH, 0, 0, 1)
        loader = crop_loader(crops, order, threads)

        def endless() -> Iterator[Any]:
            while True:
                yield from loader
                order.epoch += 1

        batches = endless()

        def work() -> None:
            seen = 0
            while seen < CROPS:
                seen += len(next(batches).clip)

        return work

    return prepare


def decoding(folder: Path, threads: int) -> Work:
    """The same crops of audio, each decoded from its mp3 file."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from featreg.datasets.audio.decode import decode, resample
    from featreg.datasets.base import Clip

    one = np.ones(1, np.uint8)
    paths = sorted((folder / "mp3").iterdir())

    class Files(Dataset[Any]):
        def __len__(self) -> int:
            return FILES

        def __getitem__(self, key: int) -> Any:
            path = paths[key % len(paths)]
            signal, rate = decode(Clip(path.stem, path, "train", one, one))
            return torch.from_numpy(resample(signal, rate, 16000, "soxr_hq")[:SAMPLES].copy())

    loader = DataLoader(Files(), BATCH, num_workers=threads, persistent_workers=True)
    return lambda: [None for _ in loader] and None


CONTESTANTS: dict[str, Callable[[Path, int], Work]] = {
    "step/published": published_step,
    "step/featreg-float32": featreg_step("float32"),
    "step/featreg-bf16-mixed": featreg_step("bf16-mixed"),
    "conreg/plain": featreg_step("bf16-mixed"),
    "conreg/featreg-conreg": featreg_step("bf16-mixed", "conreg"),
    "unlabelled/plain": featreg_step("float32"),
    "unlabelled/hint": featreg_step("float32", "hint"),
    "unlabelled/hint-16-unlabelled": featreg_step("float32", "hint", BATCH),
    "loader/mp3": decoding,
    "loader/featreg-audio": featreg_loader(()),
    "loader/featreg-vggish": featreg_loader(("vggish",)),
    "loader/featreg-vggish+openl3": featreg_loader(("vggish", "openl3")),
}


if __name__ == "__main__":
    serve(CONTESTANTS)
