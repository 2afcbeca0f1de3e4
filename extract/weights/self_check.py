"""VGGish's published self-check."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from featreg.datasets.base import FeatregError

from ..extractors.vggish import Vggish

# Mean and standard deviation of the embeddings of 3 s of a 1 kHz unit sine at 16 kHz, without the
# last activation, before the PCA and after quantization to 8 bits.
PUBLISHED: dict[Literal["raw", "pca8"], tuple[float, float]] = {
    "raw": (0.000657, 0.343),
    "pca8": (126.0, 89.3),
}
TOLERANCE = 0.1


def vggish_self_check(vggish: Path, pca: Path) -> list[str]:
    """Compare VGGish's embeddings of a sine with the published mean and standard deviation.

    Parameters
    ----------
    vggish, pca
        Safetensors files with the weights of the network and of the PCA.

    Returns
    -------
    One line per output with the computed and the published numbers.

    Raises
    ------
    FeatregError
        If a number differs from the published one by more than a tenth of it.

    References
    ----------
    ``vggish_smoke_test.py`` in the repository tensorflow/models.
    """
    sine = np.sin(2 * np.pi * 1000 * np.arange(3 * 16000) / 16000).astype(np.float32)
    lines = []
    for output, published in PUBLISHED.items():
        config = Vggish.Config(output=output)
        frames = Vggish(config, {"vggish": vggish, "vggish_pca": pca}).extract(sine)
        found = (float(frames.mean(dtype=np.float64)), float(frames.std(dtype=np.float64)))
        line = "VGGish {}: mean {:.4g}, deviation {:.4g}; published: {:.4g}, {:.4g}".format(
            output, *found, *published
        )
        if not np.allclose(found, published, rtol=TOLERANCE, atol=0):
            raise FeatregError(f"{line}: more than {TOLERANCE:.0%} apart")
        lines.append(line)
    return lines
