"""Embeddings of audio files, without a dataset: one npz file per audio file and feature.

::

    OUTPUT/FEATURE/song.mp3.npz   values (frames, dim), times (frames,), duration_s
    OUTPUT/embed.json             the settings, which are the same for all files in OUTPUT

With pooling, ``values`` has the shape (1, dim), or (1, 2 dim) for ``mean+std``, and there are no
``times``. A file is up to date if it is not older than the audio file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featreg.datasets.audio.suffixes import AUDIO_SUFFIXES
from featreg.datasets.base import Clip, ClipError, FeatregError, UsageError
from featreg.datasets.shards.atomic_file import atomic_path

from ..load_extractor import FeatureExtractor
from ..pipeline.decoder_pool import decode_apart
from .pool import Pool, pooled
from .read_features import StoredClip, StoredFeature, Values

_Signal = tuple[npt.NDArray[np.float32], int]


@dataclass(frozen=True, slots=True)
class AudioFile:
    """An audio file, and its name in the output folder."""

    path: Path
    name: str

    def target(self, output: Path, feature: str) -> Path:
        """The file with the embeddings."""
        return output / feature / f"{self.name}.npz"

    def is_done(self, output: Path, features: Sequence[str]) -> bool:
        """Whether all embeddings are there and not older than the audio."""
        try:
            written_ns = self.path.stat().st_mtime_ns
            targets = [self.target(output, feature) for feature in features]
            return all(target.stat().st_mtime_ns >= written_ns for target in targets)
        except OSError:
            return False


def find_files(paths: Sequence[Path]) -> list[AudioFile]:
    """The files at `paths`, and the audio files in folders, in alphabetical order.

    A file is named as it is called, and a file of a folder by its path in the folder.

    Raises
    ------
    UsageError
        If a folder contains no audio files, or two files would have the same name.
    """
    found: dict[str, AudioFile] = {}
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
            if not inside:
                raise UsageError(f"{path}: no audio files in this folder or its subfolders")
        for file in inside:
            name = str(file.relative_to(path)) if path.is_dir() else file.name
            other = found.setdefault(name, AudioFile(file, name))
            if other.path != file:
                raise UsageError(
                    f"{file} and {other.path} would both be written to {name}.npz; give the "
                    "folder that contains both, or use two output folders"
                )
    return list(found.values())


def check_settings(
    output: Path, extractors: Sequence[FeatureExtractor], pool: Pool | None, precision: str
) -> None:
    """Store the settings in the output folder, or compare them with those stored earlier.

    Raises
    ------
    UsageError
        If the embeddings in the folder have other settings.
    """
    about: dict[str, Any] = {each.name: each.settings for each in extractors}
    about |= {"pool": pool, "precision": precision}
    text = json.dumps(about, indent=2, sort_keys=True) + "\n"
    path = output / "embed.json"
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_text(text)
        return
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FeatregError(f"{path}: cannot be read ({error}); use another folder (-o)") from None
    now = json.loads(text)
    for name in sorted({*now, *stored} if isinstance(stored, dict) else {*now}):
        if not isinstance(stored, dict) or stored.get(name) != now.get(name):
            raise UsageError(
                f"{output}: the embeddings in this folder have other settings ({name}); use "
                "another folder (-o)"
            )


def embed_files(
    files: Sequence[AudioFile],
    extractors: Sequence[FeatureExtractor],
    output: Path,
    pool: Pool | None,
) -> Iterator[tuple[AudioFile, str]]:
    """Compute and write the embeddings; yield each file with the reason why it failed, or "".

    Each file is decoded once, in another process, while the one before it is embedded.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as decoder:
        upcoming = decoder.submit(_decode, files[0]) if files else None
        for k, file in enumerate(files):
            assert upcoming is not None
            signal = upcoming.result()
            if k + 1 < len(files):
                upcoming = decoder.submit(_decode, files[k + 1])
            if isinstance(signal, str):
                yield file, signal
                continue
            reason = ""
            for extractor in extractors:
                try:
                    values, times = extractor(*signal)
                except FeatregError as error:
                    reason = f"{file.path}: {error}"
                except Exception as error:  # one file must not stop the others
                    reason = f"{file.path}: {type(error).__name__}: {error}"
                else:
                    seconds = len(signal[0]) / signal[1]
                    _write(file.target(output, extractor.name), values, times, seconds, pool)
            yield file, reason


def _decode(file: AudioFile) -> _Signal | str:
    """Samples and sample rate of a file, or the reason why it cannot be decoded."""
    nothing = np.empty(0, np.uint8)
    try:
        return decode_apart(Clip(str(file.path), file.path, "test", nothing, nothing))
    except ClipError as error:
        return error.reason


def _write(
    target: Path, values: Values, times: npt.NDArray[np.float64], seconds: float, pool: Pool | None
) -> None:
    arrays: dict[str, Any] = {"values": values, "times": times}
    if pool is not None:
        arrays = {"values": pooled(values, pool)[None]}
    with atomic_path(target) as temporary, open(temporary, "wb") as file:
        np.savez(file, duration_s=np.float64(seconds), **arrays)


def stored_feature(
    files: Sequence[AudioFile], extractor: FeatureExtractor, output: Path, pool: Pool | None
) -> StoredFeature:
    """The embeddings of all files, to be written to one table; ids are the names of the files."""
    paths = {file.name: file.target(output, extractor.name) for file in files}
    clips = []
    for name, path in paths.items():
        arrays = _read(path)
        clips.append(StoredClip(name, len(arrays["values"]), float(arrays["duration_s"])))
    return StoredFeature(
        extractor.name,
        extractor.dim,
        extractor.timing,
        None,
        tuple(clips),
        partial(_values, list(paths.values())),
        is_pooled=pool is not None,
    )


def _values(paths: Sequence[Path]) -> Iterator[Values]:
    for path in paths:
        yield _read(path)["values"]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, LookupError) as error:
        raise FeatregError(
            f"{path}: damaged ({error}); delete it and run the same command again"
        ) from None
