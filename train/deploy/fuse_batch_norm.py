"""Batch normalizations merged into the convolutions before them, for faster inference."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..models.base import Tagger

# Largest difference of an output, relative to the largest output.
_TOLERANCE = 1e-4


def fuse_batch_norm(tagger: Tagger, example: tuple[Tensor | None, Tensor | None]) -> Tagger:
    """Return a classifier with the same outputs in which convolutions contain the normalization.

    Parameters
    ----------
    tagger
        The classifier in evaluation mode; it is not changed.
    example
        Audio and features for which the outputs are compared. If they differ, because a
        normalization does not follow the convolution before it, `tagger` is returned.
    """
    fused = copy.deepcopy(tagger)
    for module in list(fused.modules()):
        for (name, conv), (other, norm) in pairwise(list(module.named_children())):
            if (
                isinstance(conv, nn.Conv2d)
                and isinstance(norm, nn.BatchNorm2d)
                and conv.out_channels == norm.num_features
            ):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, other, nn.Identity())
    with torch.inference_mode():
        outputs = zip(tagger(*example), fused(*example), strict=True)
        same = all((a - b).abs().max() <= _TOLERANCE * (1 + a.abs().max()) for a, b in outputs)
    return fused if same else tagger
