"""A bias of attention that a small network makes of the distance between query and key."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.mixers.aggregated.grid import PooledAxis
from qna.parts.linear import apply_linear
from qna.parts.open_size import is_open

HIDDEN = 512
# coordinates at once, whose hidden units stay in a near cache
_AT_ONCE = 1024


class ContinuousPositionBias(nn.Module):
    """Log-spaced continuous position bias (Liu et al., "Swin Transformer V2", CVPR 2022).

    A query at position n and a cell with its middle at m are ``8 (n - m) / (pretrain_size - 1)`` apart along
    an axis; of that d, ``sign(d) log2(1 + |d|) / log2(8)``, and of both axes' a network with one hidden layer
    makes a number for each head. Equal distances share one: for a map of H x W positions and cells of s x s
    there are ``(2 H - s) (2 W - s)``, each of which costs ``512 (2 + heads)`` multiply-adds.

    Args:
        num_heads: heads.
        pretrain_size: positions per axis of the map in training; None for the size of the map at hand.
    """

    def __init__(self, num_heads: int, pretrain_size: Sequence[int] | None):
        super().__init__()
        self.pretrain_size = pretrain_size
        self.fc1 = nn.Linear(2, HIDDEN)
        # what the layer before made is nobody else's
        self.act = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(HIDDEN, num_heads)
        for linear in (self.fc1, self.fc2):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, axes: tuple[PooledAxis, PooledAxis], *, zero_first: bool = False) -> Tensor:
        """Of all positions and cells, (heads, H W, cells); with `zero_first` behind a column of zeros."""
        device = self.fc1.weight.device
        trained = [axis.size for axis in axes] if self.pretrain_size is None else self.pretrain_size
        (down, rows), (across, columns) = (axis.offsets(device) for axis in axes)
        # in double, as the distances are exact there, and one dtype on every path
        logs = [_log_spaced(t, size) for t, size in zip((down, across), trained, strict=True)]
        table = self._biases(torch.cartesian_prod(*logs).to(self.fc1.weight.dtype))
        # one gather of both axes: its gradient is one sum by index
        pairs = rows[:, None, :, None] * across.shape[0] + columns[None, :, None, :]
        pairs = pairs.flatten(2).flatten(0, 1)
        if zero_first:
            # gathered with the others: a bias that is padded would be copied
            pairs = F.pad(pairs + 1, (1, 0))
            table = F.pad(table, (0, 0, 1, 0))
        return table.t().contiguous().index_select(1, pairs.flatten()).unflatten(1, pairs.shape)

    def macs(self, axes: tuple[PooledAxis, PooledAxis]) -> int:
        """Multiply-adds, whatever the batch."""
        distances = math.prod(len(axis.offsets(torch.device("cpu"))[0]) for axis in axes)
        return distances * HIDDEN * (2 + self.fc2.out_features)

    def _biases(self, coordinates: Tensor) -> Tensor:
        """(D, 2) -> (D, heads), some at a time: hidden units of all would be hundreds of megabytes."""
        parts = [coordinates] if is_open(coordinates.shape[0]) else coordinates.split(_AT_ONCE)
        return torch.cat([apply_linear(self.fc2, self.act(apply_linear(self.fc1, part))) for part in parts])


def _log_spaced(distance: Tensor, trained: int) -> Tensor:
    # a map of one position has no distances, and the authors' division by zero is not to be repeated
    scaled = distance * 8 / max(trained - 1, 1)
    return scaled.sign() * (scaled.abs() + 1).log2() / 3
