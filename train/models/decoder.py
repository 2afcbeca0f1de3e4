"""The decoder D that every method shares."""

from __future__ import annotations

from torch import Tensor, nn

HIDDEN = 256


class Decoder(nn.Module):
    """Frames in, one vector of logits out (Won et al. 2020, the last layers).

    Maximum over time, Linear(d, 256), batch normalisation, ReLU, dropout 0.5,
    Linear(256, classes). The published network ends in a sigmoid and its loss is binary
    cross-entropy; here the logits come out, and the sigmoid is the loss's, which is the
    same number without the loss of precision.

    Parameters
    ----------
    dim
        d, values per frame.
    classes
        Number of logits.

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
