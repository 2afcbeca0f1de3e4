"""The decoder D, which is the same in all methods."""

from __future__ import annotations

from torch import Tensor, nn

HIDDEN = 256


class Decoder(nn.Module):
    """The last layers of the network of Won et al. 2020, from frames to logits.

    Maximum over time, Linear(d, 256), batch normalization, ReLU, dropout 0.5,
    Linear(256, classes). The published network ends with a sigmoid, followed by binary
    cross-entropy. Here the output is logits and the sigmoid is part of the loss, which is
    equivalent and numerically more precise.

    Parameters
    ----------
    dim
        d, dimensions of a frame.
    classes
        Number of classes.

    Shape
    -----
    (batch, T, dim) -> (batch, classes).
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.fc_1 = nn.Linear(dim, HIDDEN)
        self.bn = nn.BatchNorm1d(HIDDEN)
        self.dropout = nn.Dropout(0.5)
        self.fc_2 = nn.Linear(HIDDEN, classes)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        hidden = self.bn(self.fc_1(frames.amax(dim=1))).relu()
        logits: Tensor = self.fc_2(self.dropout(hidden))
        return logits
