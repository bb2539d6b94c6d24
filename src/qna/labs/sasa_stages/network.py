"""A small ResNet whose stages convolve or attend; nothing else differs between its forms."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from qna.mixers import StandAloneAttention2d
from qna.models.halonet.network import ChannelNorm, LinearNorm
from qna.parts.image_view import as_image

HEAD_DIM = 8


class Convolution3x3(nn.Module):
    """The layer that attention takes the place of: 3 x 3 positions, all channels."""

    def __init__(self, dim: int):
        super().__init__()
        self.convolution = nn.Conv2d(dim, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        return self.convolution(as_image(x)).movedim(1, -1)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size`, borders as if they were inside."""
        return 9 * math.prod(size) * size[-1]


class Bottleneck(nn.Module):
    """``relu(x + expand(spatial(reduce(x))))``, batch norm after each; twice as many channels outside."""

    def __init__(self, width: int, spatial: nn.Module):
        super().__init__()
        self.reduce = LinearNorm(2 * width, width, relu=True)
        self.spatial = spatial
        self.norm = ChannelNorm(width, relu=True)
        self.expand = LinearNorm(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, 2 width) -> the same."""
        return F.relu(x + self.expand(self.norm(self.spatial(self.reduce(x)))))


class StagedResNet(nn.Module):
    """A convolution and a halving, then stages of two bottlenecks with a halving between them.

    Args:
        channels: of the images.
        classes: number of logits.
        widths: channels of the spatial layers, per stage.
        attends: stages whose spatial layers attend; those of all others convolve 3 x 3.
        window: positions per axis that a position attends.
    """

    def __init__(
        self, channels: int, classes: int, widths: Sequence[int], attends: Collection[int], window: int
    ):
        super().__init__()
        self.stem = nn.Conv2d(channels, 2 * widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * widths[0])
        self.widen = nn.ModuleList(
            LinearNorm(2 * before, 2 * width, relu=True) for before, width in pairwise(widths)
        )
        self.fc = nn.Linear(2 * widths[-1], classes)
        # last, and the attending stages' after the others', so that what two forms share is drawn alike
        self.stages = nn.ModuleList(
            nn.Sequential(*(Bottleneck(width, nn.Identity()) for _ in range(2))) for width in widths
        )
        for width, stage in zip(widths, self.stages, strict=True):
            for block in stage:  # type: ignore[union-attr]
                block.spatial = Convolution3x3(width)
        for i in sorted(attends):
            for block in self.stages[i]:  # type: ignore[union-attr]
                width = widths[i]
                block.spatial = StandAloneAttention2d(width, num_heads=width // HEAD_DIM, kernel_size=window)

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) -> logits."""
        x = _halved(F.relu(self.norm(self.stem(images))).movedim(1, -1))
        x = self.stages[0](x)
        for widen, stage in zip(self.widen, self.stages[1:], strict=True):  # type: ignore[arg-type]
            x = stage(_halved(widen(x)))
        return self.fc(x.mean((1, 2)))


def _halved(x: Tensor) -> Tensor:
    """The mean of every 2 x 2 positions, rounded up: how the paper halves a map after attention."""
    return F.avg_pool2d(as_image(x), 2, ceil_mode=True).movedim(1, -1)
