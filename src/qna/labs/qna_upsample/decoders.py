"""An auto-encoder, and the layers that can double a map in its decoder; maps are (B, H, W, C) throughout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.mixers import QnAUpsample2d

if TYPE_CHECKING:
    from qna.mixers.learned_query.projection import QueryKeyValue

FACTOR = 2
# the paper's channels per head of learned queries
HEAD_DIM = 8


class Interpolation(nn.Module):
    """A linear map of the channels, then nearest or bilinear up-sampling."""

    def __init__(self, dim: int, mode: str):
        super().__init__()
        self.mode = mode
        self.linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, 2 H, 2 W, C)."""
        x = self.linear(x).movedim(-1, 1)
        return F.interpolate(x, scale_factor=float(FACTOR), mode=self.mode).movedim(1, -1)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size`, the weights of the neighbours included."""
        taps = 4 if self.mode == "bilinear" else 0
        return math.prod(size) * (size[-1] + FACTOR**2 * taps)


class TransposedConvolution(nn.Module):
    """Transposed convolution, 4 x 4 at stride 2: each output sees 2 x 2 positions."""

    def __init__(self, dim: int):
        super().__init__()
        self.convolution = nn.ConvTranspose2d(dim, dim, 4, stride=FACTOR, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, 2 H, 2 W, C)."""
        return self.convolution(x.movedim(-1, 1)).movedim(1, -1)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size`, borders as if they were inside."""
        return math.prod(size) * 16 * size[-1]


class SubpixelConvolution(nn.Module):
    """Convolution to four times the channels, 3 x 3, which are then laid out as 2 x 2 outputs."""

    def __init__(self, dim: int):
        super().__init__()
        self.convolution = nn.Conv2d(dim, FACTOR**2 * dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, 2 H, 2 W, C)."""
        return F.pixel_shuffle(self.convolution(x.movedim(-1, 1)), FACTOR).movedim(1, -1)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size`, borders as if they were inside."""
        return math.prod(size) * 9 * FACTOR**2 * size[-1]


def qna(dim: int) -> QnAUpsample2d:
    """Learned queries, 3 x 3."""
    return QnAUpsample2d(dim, num_heads=dim // HEAD_DIM, factor=FACTOR, kernel_size=3)


def qna_without_scores(dim: int) -> QnAUpsample2d:
    """The same with scores that stay zero: its biases are the logarithms of a fixed interpolation."""
    layer = qna(dim)
    project = cast("QueryKeyValue", layer.project)
    for parameter in (project.key, project.query):
        parameter.requires_grad_(False).zero_()
    return layer


QNA, FIXED = "qna", "qna-without-scores"
# those that the claim is about
CLAIMED = ("bilinear", "transposed-convolution")
UPSAMPLERS: dict[str, Callable[[int], nn.Module]] = {
    QNA: qna,
    FIXED: qna_without_scores,
    "bilinear": lambda dim: Interpolation(dim, "bilinear"),
    "nearest": lambda dim: Interpolation(dim, "nearest"),
    "transposed-convolution": TransposedConvolution,
    "subpixel-convolution": SubpixelConvolution,
}


class AutoEncoder(nn.Module):
    """Four times smaller and back, for images whose height and width are multiples of 4.

    Args:
        channels: of the images.
        dim: of the maps.
        code: of the smallest map.
        upsampler: a key of `UPSAMPLERS`; nothing else depends on it.
    """

    def __init__(self, channels: int, dim: int, code: int, upsampler: str):
        super().__init__()
        self.dim = dim
        self.encode = nn.Sequential(
            nn.Conv2d(channels, dim, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(dim, dim, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(dim, code, 1),
        )
        self.convolve = nn.ModuleList([nn.Conv2d(width, dim, 3, padding=1) for width in (code, dim)])
        self.paint = nn.Conv2d(dim, channels, 3, padding=1)
        # last, so that the draws of the rest are the same whatever it is
        self.upsample = nn.ModuleList([UPSAMPLERS[upsampler](dim) for _ in self.convolve])

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same."""
        x = self.encode(images.contiguous(memory_format=torch.channels_last))
        for convolve, upsample in zip(self.convolve, self.upsample, strict=True):
            x = upsample(F.gelu(convolve(x)).movedim(1, -1)).movedim(-1, 1)
        return self.paint(x)
