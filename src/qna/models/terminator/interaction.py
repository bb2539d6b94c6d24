"""Hyper-kernels that weigh channels, and positions, by their own means."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qna.mixers.hyperzzw.slow_net import SlowNet
from qna.mixers.hyperzzw.whole_map import gate


class ChannelScores(nn.Module):
    """``w * m * m``: a hyper-kernel w over the channels, and their means m over the map."""

    def __init__(self, dim: int, *, hidden: int):
        super().__init__()
        self.slow_net = SlowNet((dim,), 1, hidden=hidden, layers=2)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1)."""
        means = image.mean((2, 3), keepdim=True)
        return gate(means, self.slow_net().transpose(1, 2)[..., None]) * means


class HyperChannelInteraction(nn.Module):
    """``x * sigmoid(scores of its channels)``."""

    def __init__(self, dim: int, *, hidden: int):
        super().__init__()
        self.scores = ChannelScores(dim, hidden=hidden)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return image * torch.sigmoid(self.scores(image))


class HyperInteraction(nn.Module):
    """``x * sigmoid(s * t)`` where s scores the channels of another map y, and t its positions.

    ``t = w * m * m`` with a hyper-kernel w of the map's size and the means m of y over its channels.
    """

    def __init__(self, dim: int, size: Sequence[int], *, hidden: int, channel_hidden: int):
        super().__init__()
        self.scores = ChannelScores(dim, hidden=channel_hidden)
        self.slow_net = SlowNet(size, 1, hidden=hidden, layers=2)

    def forward(self, y: Tensor, image: Tensor) -> Tensor:
        """Two maps (B, C, H, W) -> the same."""
        means = y.mean(1, keepdim=True)
        of_positions = gate(means, self.slow_net()) * means
        return image * torch.sigmoid(of_positions * self.scores(y))
