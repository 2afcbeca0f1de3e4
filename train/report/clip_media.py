"""Spectrograms and audio of clips, embedded in a page or in files beside it."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import soundfile as sf

from featreg.datasets.shards.atomic_file import atomic_path

from ..evaluation.run_errors import ClipList, Key
from .spectrogram import spectrogram_jpeg


@dataclass(frozen=True, slots=True)
class Media:
    """URLs of the spectrogram and of the audio of a clip, and the audio file, if there is one."""

    image: str
    audio: str
    file: str = ""


def clip_media(
    lists: Sequence[ClipList], rate: int, folder: Path, embed_limit: float
) -> dict[Key, Media]:
    """Return the media of the clips in lists.

    Parameters
    ----------
    lists
        Lists of clips; a clip may be in several of them.
    rate
        Sample rate of the audio, in Hz.
    folder
        Folder beside the page to which all audio is written if it is larger than `embed_limit`.
    embed_limit
        Maximum size of the embedded audio, as text in the page, in bytes.

    Raises
    ------
    FeatregError
        If the audio of a clip is damaged, or a file cannot be written.
    """
    times = Counter(key for each in lists for key in each.keys)
    readers = {
        key: read for each in lists for key, read in zip(each.keys, each.clips.audio, strict=True)
    }
    images: dict[Key, str] = {}
    names: dict[Key, str] = {}
    sounds: dict[Key, bytes] = {}  # that may still be embedded
    size = 0
    for number, (key, read) in enumerate(readers.items(), start=1):
        samples = read()
        images[key] = _data_uri("image/jpeg", spectrogram_jpeg(samples))
        names[key] = f"{number:03d}-{re.sub('[^A-Za-z0-9._-]+', '_', key[1])[-80:]}.wav"
        sounds[key] = _wav(samples, rate)
        size += times[key] * len(base64.b64encode(sounds[key]))
        if size > embed_limit:
            _write(folder, {names[each]: sound for each, sound in sounds.items()})
            sounds.clear()
    if size > embed_limit:
        files = {key: f"{folder.name}/{name}" for key, name in names.items()}
        return {
            key: Media(images[key], quote(file, errors="surrogateescape"), file)
            for key, file in files.items()
        }
    return {key: Media(images[key], _data_uri("audio/wav", wav)) for key, wav in sounds.items()}


def _write(folder: Path, sounds: Mapping[str, bytes]) -> None:
    for name, sound in sounds.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(sound)


def _wav(samples: npt.NDArray[np.int16], rate: int) -> bytes:
    file = io.BytesIO()
    sf.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
