"""What makes and halves the maps of fully attentional networks, and tells them their places."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.models._parts.block import NORM_EPS
from qna.models._parts.scripting import NotScripted
from qna.models._parts.shortcut import even_rows
from qna.models._parts.stem import check_images
from qna.parts.image_view import on_image
from qna.parts.linear import apply_linear
from qna.parts.rows import PositionRows


class FourierPosition(nn.Module):
    """Adds a linear map of sines and cosines of each position, which knows no size of map.

    Row i of H, from 1, is the angle ``2 pi i / (H + 1e-6)``, a column likewise; each is divided by 10000^(2 j
    / frequencies) for j from 0 and gives a sine and a cosine, rows before columns. A position takes 2
    frequencies C multiply-adds.

    Args:
        dim: channels of the map.
        frequencies: sines and cosines of each axis; even.
    """

    def __init__(self, dim: int, frequencies: int = 32):
        super().__init__()
        self.frequencies = frequencies
        self.linear = nn.Linear(2 * frequencies, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        rows, columns = (self._waves(n, x) for n in x.shape[1:3])
        size = (*x.shape[1:3], self.frequencies)
        waves = torch.cat([rows[:, None].expand(size), columns[None].expand(size)], -1)
        return x + apply_linear(self.linear, waves)

    def _waves(self, size: int, x: Tensor) -> Tensor:
        """Sines and cosines, alternating, of each place on an axis: (size, frequencies)."""
        # in half precision places of an axis would fall together
        dtype = torch.promote_types(x.dtype, torch.float32)
        place = torch.arange(1, size + 1, device=x.device, dtype=dtype)
        angle = place / (size + 1e-6) * (2 * math.pi)
        j = torch.arange(self.frequencies // 2, device=x.device, dtype=dtype)
        angle = angle[:, None] / 10000 ** (2 * j / self.frequencies)
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).to(x.dtype)


class ConvolvedPatchStem(NotScripted, nn.Module):
    """Four convolutions of 3 x 3 at stride 2 with batch norms, GELUs between them, and places.

    The channels are an eighth, a quarter and half of `dim` before they are all.
    """

    reduction = 16

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        layers: list[nn.Module] = []
        channels = [in_chans, dim // 8, dim // 4, dim // 2, dim]
        for i, (before, after) in enumerate(pairwise(channels)):
            layers += [nn.GELU()] if i else []
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after)]
        self.layers = nn.Sequential(*layers)
        self.position = FourierPosition(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H / 16), ceil(W / 16), dim)."""
        first: Any = self.layers[0]
        check_images(x, first)
        return self.position(self.layers(x).permute(0, 2, 3, 1).contiguous())


class SampleVarianceNorm(nn.LayerNorm):
    """A layer norm that divides by the root of ``sum (x - mean)^2 / (C - 1)``, where others have C.

    So are all maps normalised behind the stem's in the authors' stages of ConvNeXt, whose norm takes this
    variance where a map does not lie channels first in memory; there it is 0.4 % larger. One channel alone
    has no such variance, and becomes the bias.
    """

    def __init__(self, dim: int):
        super().__init__(dim, eps=NORM_EPS)

    def forward(self, input: Tensor) -> Tensor:
        """(..., C) -> the same."""
        # with s = (C - 1) / C, 1 / sqrt(v / s + eps) of the v that torch takes is sqrt(s) / sqrt(v + s eps)
        share = (self.normalized_shape[0] - 1) / self.normalized_shape[0]
        weight = self.weight * math.sqrt(share)
        return F.layer_norm(input, self.normalized_shape, weight, self.bias, max(share, 0.5) * self.eps)


class PairedHalving(nn.Module):
    """A norm where asked for, and a convolution of 2 x 2 at stride 2; zeros fill up a map of odd size."""

    def __init__(self, dim: int, out_dim: int, *, normed: bool):
        super().__init__()
        self.norm = SampleVarianceNorm(dim) if normed else nn.Identity()
        self.conv = nn.Conv2d(dim, out_dim, 2, stride=2)
        if normed:
            # it stands between stages of ConvNeXt and begins as their layers do
            nn.init.normal_(self.conv.weight, std=0.02)
            assert self.conv.bias is not None
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, ceil(H / 2), ceil(W / 2), out_dim)."""
        x = F.pad(self.norm(x), (0, 0, 0, -x.shape[2] % 2, 0, -x.shape[1] % 2))
        return on_image(self.conv, x)

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows]:
        """Which positions each is made of, all alike."""
        rows = even_rows(x, 2, 2, 0)
        return rows, rows
