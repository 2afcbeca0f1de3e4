"""A package of the HEAR API: a linear map of the spectrum, with its weights in a file."""

from __future__ import annotations

import torch
from torch import Tensor

RATE, WINDOW, HOP, SIZE = 8000, 400, 200, 12


class Spectrum(torch.nn.Module):
    """The weighted magnitudes of the spectra of windows of 50 ms, every 25 ms."""

    sample_rate = RATE
    timestamp_embedding_size = SIZE
    scene_embedding_size = 2 * SIZE

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(WINDOW // 2 + 1, SIZE)

    def forward(self, audio: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(audio, (WINDOW // 2, WINDOW // 2))
        spectra = torch.fft.rfft(padded.unfold(1, WINDOW, HOP)).abs()
        found: Tensor = self.linear(spectra)
        return found


def load_model(model_file_path: str = "") -> Spectrum:
    """The model; with random weights if there is no file."""
    model = Spectrum()
    if model_file_path:
        model.load_state_dict(torch.load(model_file_path, weights_only=True))
    return model.eval()


def get_timestamp_embeddings(audio: Tensor, model: Spectrum) -> tuple[Tensor, Tensor]:
    """Embeddings of shape (sounds, times, 12), and their times in milliseconds."""
    found = model(audio)
    times = torch.arange(found.shape[1]) * (1000 * HOP / RATE)
    return found, times.expand(len(audio), -1)


def get_scene_embeddings(audio: Tensor, model: Spectrum) -> Tensor:
    """Mean and maximum over time, shape (sounds, 24)."""
    found = model(audio)
    return torch.cat([found.mean(dim=1), found.amax(dim=1)], dim=1)
