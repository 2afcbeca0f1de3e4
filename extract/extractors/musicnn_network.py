"""Network of musicnn, and conversion of its published checkpoints.

The network has a musically motivated front end, a dense mid-end, and pooling over time before two
dense layers. Batch norm follows the ReLU, which follows the convolution.

J. Pons and X. Serra, "musicnn: Pre-trained convolutional neural networks for music audio
tagging", late-breaking demo, ISMIR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Array

Output = Literal["mean_pool", "max_pool", "penultimate", "taggram"]

PATCH = 187  # spectrogram frames of an input of the network
NORM_EPS = 1e-3
# Size in frames and bands, and number, of each kind of filters.
TIMBRAL = ((7, 38, 204), (7, 67, 204))
TEMPORAL = ((128, 1, 51), (64, 1, 51), (32, 1, 51))

# Convolutions in the order of their numbers in the checkpoints: conv2d, conv2d_1, ...
CONVOLUTIONS = (
    "front.timbral.0",
    "front.timbral.1",
    "front.temporal.0",
    "front.temporal.1",
    "front.temporal.2",
    "mid.layers.0",
    "mid.layers.1",
    "mid.layers.2",
)


def from_tensorflow(variables: Mapping[str, Array]) -> dict[str, Array]:
    """Convert the variables of a published checkpoint to a state dict of `Network`.

    Variables of the optimizer are ignored.

    Raises
    ------
    KeyError
        If a variable is missing.
    """
    state: dict[str, Array] = {}

    def convolution(index: int, target: str) -> None:
        source = f"conv2d_{index}" if index else "conv2d"
        kernel = variables[f"{source}/kernel"].transpose(3, 2, 0, 1)  # (out, in, time, band)
        # The "bands" of the mid-end are channels: its convolutions are over time only.
        weight = kernel[:, 0].transpose(0, 2, 1) if target.startswith("mid.") else kernel
        state[f"{target}.weight"] = weight
        state[f"{target}.bias"] = variables[f"{source}/bias"]

    def norm(index: int, target: str) -> None:
        source = f"batch_normalization_{index}" if index else "batch_normalization"
        state[f"{target}.weight"] = variables[f"{source}/gamma"]
        state[f"{target}.bias"] = variables[f"{source}/beta"]
        state[f"{target}.running_mean"] = variables[f"{source}/moving_mean"]
        state[f"{target}.running_var"] = variables[f"{source}/moving_variance"]

    def dense(source: str, target: str) -> None:
        state[f"{target}.weight"] = variables[f"{source}/kernel"].T
        state[f"{target}.bias"] = variables[f"{source}/bias"]

    norm(0, "front.norm")
    for index, target in enumerate(CONVOLUTIONS):
        convolution(index, f"{target}.conv")
        norm(index + 1, f"{target}.norm")
    norm(9, "back.pooled_norm")
    dense("dense", "back.dense")
    norm(10, "back.dense_norm")
    dense("dense_1", "back.tags")
    return state


class PooledConvolution(nn.Module):
    """Convolution, ReLU, batch norm, maximum over frequency: one kind of front-end filters."""

    def __init__(self, length: int, bands: int, filters: int) -> None:
        super().__init__()
        self.length = length
        self.conv = nn.Conv2d(1, filters, (length, bands))
        self.norm = nn.BatchNorm1d(filters, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, 1, time, bands) to (n, filters, time - length + 1): no padding."""
        # ReLU and norm are monotone, so the maximum can be computed first, which saves time. With
        # a negative gain it becomes a minimum: the negated maximum of the negated filter's output.
        sign = self.norm.get_parameter("weight").sign()
        weight = self.conv.weight * sign[:, None, None, None]
        bias = self.conv.get_parameter("bias") * sign
        # The maps before the maximum are large. On a CPU, those of about 200 frames stay in the
        # cache; computing those of a whole batch takes up to three times as long.
        parts = -(-len(x) * x.shape[2] // 200) if x.device.type == "cpu" else 1
        maps = (F.conv2d(part, weight, bias) for part in x.chunk(parts))
        pooled = torch.cat([part.float().amax(3) for part in maps])
        normed: Tensor = self.norm(F.relu(pooled * sign[:, None]))
        return normed


class FrontEnd(nn.Module):
    """Timbral filters (many bands, few frames) and temporal filters (one band, many frames).

    There are 561 filters. The outputs of overlapping patches of a clip are equal, except near the
    ends of each patch, which is padded with zeros. They are therefore computed once for all
    patches, and separately only near the ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, NORM_EPS)
        self.timbral = nn.ModuleList(PooledConvolution(*shape) for shape in TIMBRAL)
        self.temporal = nn.ModuleList(PooledConvolution(*shape) for shape in TEMPORAL)

    def forward(self, frames: Tensor, starts: Tensor) -> Tensor:
        """Shape (frames, 96), with the first frames of n patches, to (n, 561, 187)."""
        frames = self.norm(frames[None, None])[0, 0]
        inside = torch.arange(PATCH, device=starts.device)
        patches = frames[starts[:, None] + inside][:, None]
        features = []
        for layer in (*self.timbral, *self.temporal):
            assert isinstance(layer, PooledConvolution)
            seam = layer.length - 1
            # "Same" padding; TensorFlow puts an odd zero at the end.
            head = layer(F.pad(patches[:, :, :seam], (0, 0, seam // 2, 0)))
            tail = layer(F.pad(patches[:, :, -seam:], (0, 0, 0, seam - seam // 2)))
            # Blocks of 128 outputs, which keep the maps small.
            blocks = F.pad(frames, (0, 0, 0, (seam - len(frames)) % 128))
            blocks = blocks.unfold(0, 128 + seam, 128).transpose(1, 2)[:, None]
            shared = layer(blocks).transpose(0, 1).flatten(1)
            middle = shared[:, starts[:, None] + inside[:-seam]].transpose(0, 1)
            features.append(torch.cat((head, middle, tail), 2))
        return torch.cat(features, 1)


class Convolution(nn.Module):
    """Convolution over 7 frames, ReLU, batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, 64, 7, padding=3)
        self.norm = nn.BatchNorm1d(64, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, channels, time) to (n, 64, time)."""
        normed: Tensor = self.norm(F.relu(self.conv(x).float()))
        return normed


class MidEnd(nn.Module):
    """Three layers, the last two residual, whose outputs are concatenated with the input."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Convolution(channels) for channels in (561, 64, 64))

    def forward(self, front: Tensor) -> Tensor:
        """Shape (n, 561, time) to (n, 753, time)."""
        first = self.layers[0](front)
        second = first + self.layers[1](first)
        third = second + self.layers[2](second)
        return torch.cat((front, first, second, third), 1)


class BackEnd(nn.Module):
    """Mean and maximum over time, a dense layer, and the output layer of 50 tags."""

    def __init__(self) -> None:
        super().__init__()
        self.pooled_norm = nn.BatchNorm1d(2 * 753, NORM_EPS)
        self.dense = nn.Linear(2 * 753, 200)
        self.dense_norm = nn.BatchNorm1d(200, NORM_EPS)
        self.tags = nn.Linear(200, 50)

    def forward(self, features: Tensor, output: Output) -> Tensor:
        """Shape (n, 753, time) to (n, dim); later layers than `output` are not computed."""
        mean = features.mean(2)
        if output == "mean_pool":
            return mean
        maximum = features.amax(2)
        if output == "max_pool":
            return maximum
        pooled = torch.stack((maximum, mean), 2).flatten(1)
        penultimate: Tensor = self.dense_norm(F.relu(self.dense(self.pooled_norm(pooled)).float()))
        if output == "penultimate":
            return penultimate
        logits: Tensor = self.tags(penultimate)
        return logits.float().sigmoid()


class Network(nn.Module):
    """Front end, mid-end and back end."""

    def __init__(self) -> None:
        super().__init__()
        self.front = FrontEnd()
        self.mid = MidEnd()
        self.back = BackEnd()

    def forward(self, frames: Tensor, starts: Tensor, output: Output) -> Tensor:
        """Output of a layer for each patch, shape (n, dim).

        Parameters
        ----------
        frames
            Log-mel frames of shape (frames, 96).
        starts
            Index of the first frame of each patch, shape (n,), integers.
        output
            Layer to return.
        """
        values: Tensor = self.back(self.mid(self.front(frames, starts)), output)
        return values
