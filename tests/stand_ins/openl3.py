"""A package of the interface of openl3 0.4: its framing, and samples of its windows."""

from types import SimpleNamespace

import numpy as np

__version__ = "0.4.2"
RATE = 48000
loaded = []


def load_audio_embedding_model(input_repr, content_type, embedding_size, frontend="kapre"):
    assert frontend == "kapre"
    loaded.append((input_repr, content_type, embedding_size))
    return embedding_size


models = SimpleNamespace(load_audio_embedding_model=load_audio_embedding_model)


def get_audio_embedding(
    audio,
    sr,
    model=None,
    input_repr=None,
    content_type="music",
    embedding_size=6144,
    center=True,
    hop_size=0.1,
    batch_size=32,
    frontend="kapre",
    verbose=True,
):
    assert (sr, frontend) == (RATE, "kapre")
    assert model is not None
    hop = int(hop_size * RATE)
    audio = np.pad(audio, (RATE // 2 if center else 0, 0))
    audio = np.pad(audio, (0, max(0, RATE - len(audio))))
    audio = np.pad(audio, (0, -(len(audio) - RATE) % hop))
    windows = np.lib.stride_tricks.sliding_window_view(audio, RATE)[::hop]
    rows = windows[:, : RATE : RATE // model][:, :model]
    return rows.copy(), np.arange(len(rows)) * hop_size
