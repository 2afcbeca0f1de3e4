"""The doctor's trials: code is compiled, audio decoded and a shard written, in small."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from featreg.datasets.shards.disk_space import existing

from .doctor import Finding

# Formats of the datasets and of what people have, and how a second of each is encoded.
_CODECS = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}
_RATE = 16000


def check_compiled() -> Iterator[Finding]:
    """Whether numba can compile, and keep what it compiled."""
    try:
        from ..conv import kernels as winograd_kernels
    except RuntimeError as error:  # numba found no folder to keep compiled code in
        yield Finding("broken", f"numba: {error}", "set NUMBA_CACHE_DIR to a folder of your own")
        return
    yield Finding("ok", f"numba keeps its code for {Path(winograd_kernels.__file__).parent}")


def check_audio() -> Iterator[Finding]:
    """A second of sound in each format, encoded and decoded, and at another rate."""
    import soundfile
    import soxr

    yield Finding("ok", f"libsndfile {soundfile.__libsndfile_version__}")
    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(_RATE) / _RATE)
    for name, subtype in _CODECS.items():
        file = io.BytesIO()
        try:
            soundfile.write(file, sine, _RATE, format=name, subtype=subtype)
            file.seek(0)
            decoded, _ = soundfile.read(file)
        except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
            yield Finding(
                "broken",
                f"{name} files cannot be read: {error}",
                "pip install --force-reinstall soundfile (its wheel brings libsndfile)",
            )
            continue
        # Lossy codecs keep loudness and, give or take their padding, length.
        alike = abs(decoded.std() - sine.std()) < 0.05 and abs(len(decoded) - _RATE) < 0.2 * _RATE
        yield Finding("ok" if alike else "broken", f"{name} is read")
    others = sorted({"AIFF", "AU", "CAF", "RF64", "W64"} & soundfile.available_formats().keys())
    yield Finding("ok", f"also {', '.join(others)}; not AAC or M4A, which ffmpeg converts")
    yield Finding(
        "ok", f"soxr resamples to {len(soxr.resample(sine, _RATE, 8000))} samples of 8000"
    )


def check_shards(work: Path) -> Iterator[Finding]:
    """A small HDF5 file where shards will lie, with checksums and compression."""
    import h5py

    folder = existing(work)
    values = np.arange(1000)
    remedy = "--work DIR names another folder"
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".featreg-doctor-") as scratch:
            path = Path(scratch) / "shard.h5"
            with h5py.File(path, "w", locking=False) as file:
                file.create_dataset("rows", data=values, fletcher32=True, compression="lzf")
            with h5py.File(path, "r", locking=False) as file:
                same = np.array_equal(file["rows"][()], values)
    except OSError as error:
        yield Finding("broken", f"no HDF5 file can be written in {folder}: {error}", remedy)
        return
    text = f"HDF5 {h5py.version.hdf5_version}: written and read in {folder}"
    yield Finding("ok" if same else "broken", text, "" if same else remedy)
