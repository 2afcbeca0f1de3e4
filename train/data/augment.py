"""Augmentation of batches of training crops: random gain and mixup.

Both are functions of the seed and of the keys of a batch's crops (see `crops.Crops`): they do not
depend on the thread or device that computes them, or on whether the run was resumed.

A random shift in time is not an augmentation of its own: the crops start at random frames already,
audio and features alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .crops import Batch
from .unlabelled import Key


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Augmentation of the batches of a run.

    Attributes
    ----------
    seed
        Seed of the run.
    gain
        Maximum gain and attenuation of the audio, in dB; 0 disables both. Amplified audio may
        exceed [-1, 1] and is not clipped.
    mixup
        Parameter of the Beta distribution of mixup; 0 disables it.
    unlabelled
        Number of clips without labels, which are the last of each batch.
    """

    seed: int
    gain: float = 0.0
    mixup: float = 0.0
    unlabelled: int = 0

    def __call__(self, batch: Batch, keys: Sequence[Key]) -> Batch:
        """Return the augmented batch; its audio and features are changed in place.

        Parameters
        ----------
        batch
            The crops.
        keys
            The key of each crop: (epoch, index of the clip).
        """
        if self.gain:
            batch.audio.mul_(torch.tensor([[self._factor(key)] for key in keys]))
        if self.mixup:
            rng = np.random.default_rng((self.seed, 7, *keys[0]))
            labelled = len(keys) - self.unlabelled
            share = torch.from_numpy(rng.beta(self.mixup, self.mixup, len(keys))).float()
            # Clips with labels are mixed with each other, and so are clips without labels.
            other = np.concatenate(
                [rng.permutation(labelled), labelled + rng.permutation(self.unlabelled)]
            )
            batch = mixed(batch, torch.from_numpy(other), share)
        return batch

    def _factor(self, key: Key) -> float:
        """Return the factor of a crop, whose gain in dB is uniformly distributed."""
        rng = np.random.default_rng((self.seed, 6, *key))
        return float(10 ** (rng.uniform(-self.gain, self.gain) / 20))


def mixed(batch: Batch, other: Tensor, share: Tensor) -> Batch:
    """Mix each crop with another one: ``share * crop + (1 - share) * other crop``.

    Audio, features and labels are mixed with the same shares. A regularizer therefore compares
    the embedding of the mixed audio with the mixed features. A label is annotated if it is
    annotated in both clips. Mixed labels are in [0, 1]; those of a single-label task are a
    distribution over the classes. (H. Zhang et al., "mixup: Beyond empirical risk minimization",
    ICLR 2018.)

    Parameters
    ----------
    batch
        The crops; audio and features are changed in place.
    other
        Index of the other crop for each crop, of shape (batch,), int64.
    share
        Share of each crop itself, in [0, 1], of shape (batch,).
    """
    for values in (batch.audio, batch.features, batch.label):
        each = share.view(-1, *[1] * (values.dim() - 1))
        partner = values[other].mul_(1 - each)
        values.mul_(each).add_(partner)
    return batch._replace(label_mask=batch.label_mask * batch.label_mask[other])
