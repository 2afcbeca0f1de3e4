"""Deterministic parameters and signals for the reference outputs in this folder.

Each array is drawn from its own generator, seeded by the CRC-32 of its name, so
the same name and shape give the same numbers in any framework.  Kernels are
returned in the layout named by the caller's shape: the references here were made
with channels-last kernels, (height, width, in, out) and (in, out).
"""

import zlib

import numpy as np


def array(name: str, shape: tuple[int, ...], scale: float = 1.0, offset: float = 0.0) -> np.ndarray:
    """Normal noise of `shape`, times `scale`, plus `offset`, as float32."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return (offset + scale * rng.standard_normal(shape)).astype(np.float32)


def kernel(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel with He scaling; the fan-in is every axis but the last."""
    return array(name, shape, scale=float(np.sqrt(2.0 / np.prod(shape[:-1]))))


def batch_norm(name: str, channels: int) -> dict[str, np.ndarray]:
    """gamma, beta, mean and (positive) variance of a batch normalisation layer."""
    return {
        "gamma": array(f"{name}/gamma", (channels,), 0.1, 1.0),
        "beta": array(f"{name}/beta", (channels,), 0.1),
        "mean": array(f"{name}/mean", (channels,), 0.1),
        "variance": np.abs(array(f"{name}/variance", (channels,), 0.1, 1.0)),
    }


def signal(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """A chirp, two steady partials and a little noise; float32 within [-1, 1]."""
    t = np.arange(round(seconds * rate)) / rate
    chirp = np.sin(2 * np.pi * (110.0 * t + 0.5 * 900.0 * t**2 / max(seconds, 1e-9)))
    partials = np.sin(2 * np.pi * 440.0 * t) + 0.5 * np.sin(2 * np.pi * 1320.0 * t)
    noise = np.random.default_rng(seed).standard_normal(t.size)
    return (0.3 * chirp + 0.2 * partials + 0.02 * noise).astype(np.float32)
