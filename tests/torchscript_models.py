"""A small TorchScript model. TorchScript reads annotations, so they must not be strings."""

from pathlib import Path

import torch


class Means(torch.nn.Module):
    """Means of the tenths of a window, and its sum."""

    sample_rate: int

    def __init__(self) -> None:
        super().__init__()
        self.sample_rate = 8000

    def forward(self, audio: torch.Tensor):  # type: ignore[no-untyped-def]
        return audio.reshape(audio.shape[0], 10, -1).mean(dim=2), audio.sum(dim=1, keepdim=True)


def save_means(path: Path) -> Path:
    """Write the model to a file."""
    torch.jit.script(Means()).save(path)  # type: ignore[no-untyped-call]
    return path
