"""Channels that the mean of a map weighs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Squeeze and excitation (Hu et al., CVPR 2018): ``x sigmoid(fc2(GELU(fc1(mean of x))))``.

    Args:
        dim: channels.
        reduction: channels per hidden channel.
        least: hidden channels at least.
        bias: whether the linear maps have one.
    """

    def __init__(self, dim: int, *, reduction: int = 8, least: int = 16, bias: bool = True):
        super().__init__()
        hidden = max(least, dim // reduction)
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        weight = torch.sigmoid(self.fc2(self.act(self.fc1(x.mean((1, 2))))))
        return x * weight[:, None, None]

    def macs(self, size: tuple[int, ...]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, C): those of the two linear maps."""
        return 2 * size[0] * self.fc1.weight.numel()
