"""Random weights for benchmarks; the speed does not depend on the values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from featreg.extract.weights.layouts import layout

WEIGHTS = ("vggish", "vggish_pca", "openl3-mel256-music", "efficientat-mn04", "efficientat-mn10")


def write_weights(folder: Path) -> None:
    """Seeded random weights that preserve the variance of activations."""
    rng = np.random.default_rng(0)
    for name in WEIGHTS:
        arrays = {}
        for key, shape in layout(name).items():
            if len(shape) > 1:
                scale = np.sqrt(2 / np.prod(shape[1:]))
                arrays[key] = (scale * rng.standard_normal(shape)).astype(np.float32)
            else:
                ones = key.endswith(("running_var", "weight"))  # of a batch norm
                arrays[key] = np.full(shape, ones, np.float32)
        save_file(arrays, folder / f"{name}.safetensors")
