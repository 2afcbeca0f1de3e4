"""Fast inference of EfficientAT's network, equivalent to the published layers.

Batch norms are folded into the convolutions. On CPUs that torch's oneDNN supports, the convolutions
are computed by oneDNN with packed filters, fused with the activation and the residual sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..conv.make_stack import exact
from .base import Precision
from .efficientat_frontend import BANDS
from .efficientat_network import Concurrent, Convolution, Excitation, InvertedResidual, Network

# The feature maps before this layer are large. On a CPU they are computed one window at a time,
# which keeps them in the cache; from this layer on, several windows share each call.
_SMALL = 4
# With bfloat16, the layers before this one stay in float32: they gain little from it, and with the
# trained weights of mn04 the cosine similarity to float32 would fall to 0.95.
_REDUCED = 5
_FRAMES = 1000  # number of frames for which oneDNN packs the filters; others work as well

Output = Literal["frames", "pooled", "scores"]

_ACTIVATIONS = {nn.ReLU: "relu", nn.Hardswish: "hardswish"}


class FoldedConvolution:
    """Convolution, batch norm and activation as one step.

    Parameters
    ----------
    layers
        The published layers.
    device, dtype
        Device, and type of feature maps and filters.
    image
        Shape of most inputs.
    """

    def __init__(
        self, layers: Convolution, device: str, dtype: torch.dtype, image: Sequence[int]
    ) -> None:
        convolution, norm = layers[0], layers[1]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = convolution.weight * gain[:, None, None, None]
        self._weight = weight.to(device, dtype, memory_format=torch.channels_last)
        self._bias = (norm.bias - norm.running_mean * gain).to(device, dtype)
        self._activation = _ACTIVATIONS[type(layers[2])] if len(layers) > 2 else "none"
        self._stride, self._padding = (
            list(convolution.stride),
            [convolution.kernel_size[0] // 2] * 2,
        )
        self._groups = convolution.groups
        self._packed = self._pack(image) if device == "cpu" else None

    def _pack(self, image: Sequence[int]) -> Tensor | None:
        """The filters in oneDNN's packed layout; None if torch or the processor lacks support.

        See ``conv/grouped_matmul.py``: the operators are not part of torch's public interface.
        """
        try:
            packed: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
                self._weight.to_mkldnn(), self._padding, self._stride, [1, 1], self._groups, image
            )
            zeros = torch.zeros(image, dtype=self._weight.dtype)
            self._run_packed(zeros.to(memory_format=torch.channels_last), packed, None)
            return packed
        except (AttributeError, RuntimeError, TypeError):  # missing, unsupported or changed
            return None

    def output_shape(self, image: Sequence[int]) -> list[int]:
        """Shape of the outputs for inputs of shape `image`."""
        sides = (-(-side // down) for side, down in zip(image[2:], self._stride, strict=True))
        return [image[0], len(self._bias), *sides]

    def _run_packed(self, maps: Tensor, packed: Tensor, residual: Tensor | None) -> Tensor:
        shared = (packed, self._bias, self._padding, self._stride, [1, 1], self._groups)
        if residual is None:
            found: Tensor = torch.ops.mkldnn._convolution_pointwise(
                maps, *shared, self._activation, [], ""
            )
        else:  # the layers before a residual sum have no activation
            found = torch.ops.mkldnn._convolution_pointwise.binary(
                maps, residual, *shared, "add", 1.0, None, [], None
            )
        return found

    def __call__(self, maps: Tensor, residual: Tensor | None = None) -> Tensor:
        """Shape (n, inputs, height, width) to (n, outputs, height / stride, width / stride)."""
        if self._packed is not None:
            return self._run_packed(maps, self._packed, residual)
        found = F.conv2d(
            maps, self._weight, self._bias, self._stride, self._padding, groups=self._groups
        )
        if self._activation != "none":
            found = getattr(F, self._activation)(found, inplace=True)
        return found if residual is None else found + residual


class FoldedExcitation:
    """In-place `Excitation` with means and gains in float32."""

    def __init__(self, layers: Excitation, device: str) -> None:
        self._dense = [
            (layer.bias.to(device), layer.weight.T.contiguous().to(device))
            for layer in (layers.fc1, layers.fc2)
        ]

    def __call__(self, maps: Tensor) -> Tensor:
        """Maps of shape (n, channels, height, width), weighted."""
        (bias1, weight1), (bias2, weight2) = self._dense
        means = maps.mean((2, 3), dtype=torch.float32)
        gains = torch.addmm(bias2, torch.addmm(bias1, means, weight1).relu_(), weight2).sigmoid_()
        return maps.mul_(gains[:, :, None, None].to(maps.dtype))


class FoldedBlock:
    """`InvertedResidual`, or a single convolution."""

    def __init__(
        self,
        layers: InvertedResidual | Convolution,
        device: str,
        dtype: torch.dtype,
        image: Sequence[int],
    ) -> None:
        self.dtype = dtype
        steps: list[nn.Module] = [layers]
        self._residual = False
        if isinstance(layers, InvertedResidual):
            steps, self._residual = list(layers.block), layers.residual
        self._steps: list[FoldedConvolution | FoldedExcitation] = []
        self.image = list(image)
        for layer in steps:
            if isinstance(layer, Concurrent):
                excitation = layer.conc_se_layers[0]
                assert isinstance(excitation, Excitation)
                self._steps.append(FoldedExcitation(excitation, device))
                continue
            assert isinstance(layer, Convolution)
            step = FoldedConvolution(layer, device, dtype, self.image)
            self._steps.append(step)
            self.image = step.output_shape(self.image)

    def __call__(self, maps: Tensor) -> Tensor:
        """See `InvertedResidual`."""
        maps = inputs = maps.to(self.dtype)
        for step in self._steps[:-1]:
            maps = step(maps)
        last = self._steps[-1]
        assert isinstance(last, FoldedConvolution)
        return last(maps, inputs if self._residual else None)


class Inference:
    """The network, from spectrograms of equal length to feature maps or scores.

    Parameters
    ----------
    network
        Network with its weights.
    device, precision
        See `Extractor`.
    """

    def __init__(self, network: Network, device: str, precision: Precision) -> None:
        self._device = device
        image = [1, 1, BANDS, _FRAMES]
        self._blocks: list[FoldedBlock] = []
        with torch.inference_mode():
            for place, layers in enumerate(network.features):
                assert isinstance(layers, InvertedResidual | Convolution)
                dtype = getattr(torch, precision) if place >= _REDUCED else torch.float32
                self._blocks.append(FoldedBlock(layers, device, dtype, image))
                image = self._blocks[-1].image
            self._classifier = network.classifier.to(device).eval()

    def __call__(self, spectrograms: Sequence[npt.NDArray[np.float32]], output: Output) -> Tensor:
        """Output of the network for spectrograms of equal length.

        Parameters
        ----------
        spectrograms
            Spectrograms of shape (128, frames) each.
        output
            ``frames``: the last feature map averaged over frequency, shape
            (n, ceil(frames / 32), channels); ``pooled``: averaged over time as well, shape
            (n, 1, channels); ``scores``: probabilities of the classes, shape (n, 1, 527).

        Returns
        -------
        Tensor of the shape given above, float32.
        """
        maps = self.maps(spectrograms)
        with torch.inference_mode():
            if output == "frames":
                return maps.mean(2).transpose(1, 2)
            pooled = maps.mean((2, 3), keepdim=True)
            if output == "pooled":
                return pooled[:, None, :, 0, 0]
            scores: Tensor = self._classifier(pooled).sigmoid()
            return scores[:, None]

    def maps(self, spectrograms: Sequence[npt.NDArray[np.float32]]) -> Tensor:
        """The last feature maps, shape (n, channels, 4, ceil(frames / 32)), float32."""
        images = [torch.from_numpy(each)[None, None] for each in spectrograms]
        if self._device != "cpu":
            images = [torch.cat(images).to(self._device)]
        with torch.inference_mode(), exact():
            first = [self._run(self._blocks[:_SMALL], image) for image in images]
            return self._run(self._blocks[_SMALL:], torch.cat(first)).float()

    @staticmethod
    def _run(blocks: Sequence[FoldedBlock], maps: Tensor) -> Tensor:
        maps = maps.contiguous(memory_format=torch.channels_last)
        for block in blocks:
            maps = block(maps)
        return maps
