"""Stems, blocks and MLPs of SpectFormer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qna.models._parts.block import NORM_EPS
from qna.models._parts.class_token import ClassAttention
from qna.models._parts.padding import pad_same
from qna.models._parts.scripting import NotScripted
from qna.models._parts.stem import check_images
from qna.parts.activation import apply_gelu
from qna.parts.drop_path import DropPath
from qna.parts.image_view import on_image
from qna.parts.linear import apply_linear
from qna.parts.mlp import ChannelMlp
from qna.parts.resize import resize_table


class PositionedPatchStem(NotScripted, nn.Module):
    """Each patch through one linear map, and a learned embedding of its position, resized to the map."""

    def __init__(self, in_chans: int, dim: int, patch_size: int, map_size: int):
        super().__init__()
        self.reduction = patch_size
        self.map_size = map_size
        self.conv = nn.Conv2d(in_chans, dim, patch_size, stride=patch_size)
        self.position = nn.Parameter(torch.empty(1, map_size**2, dim))
        nn.init.normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H / patch), ceil(W / patch), dim)."""
        check_images(x, self.conv)
        x = self.conv(pad_same(x, self.reduction, self.reduction)).permute(0, 2, 3, 1).contiguous()
        table = self.position[0].unflatten(0, (self.map_size, self.map_size))
        return x + resize_table(table, x.shape[1:3])

    def no_weight_decay(self) -> set[str]:
        """Names of tables of positions."""
        return {"position"}


class ConvolvedStem(NotScripted, nn.Module):
    """Convolutions of 7x7 at stride 2 and twice 3x3, batch norms, ReLUs; 3x3 at stride 2, and a norm."""

    reduction = 4

    def __init__(self, in_chans: int, hidden: int, dim: int):
        super().__init__()
        layers: list[nn.Module] = []
        for channels, kernel, stride in ((in_chans, 7, 2), (hidden, 3, 1), (hidden, 3, 1)):
            conv = nn.Conv2d(channels, hidden, kernel, stride=stride, padding=kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(hidden), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.conv = nn.Conv2d(hidden, dim, 3, stride=2, padding=1)
        # of 1e-5, where those of blocks and stages have 1e-6
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(ceil(H / 2) / 2), ceil(ceil(W / 2) / 2), dim)."""
        first: Any = self.layers[0]
        check_images(x, first)
        return self.norm(self.conv(self.layers(x)).permute(0, 2, 3, 1).contiguous())


class SpectralBlock(nn.Module):
    """``x + mlp(norm(mixer(norm(x))))``: one skip path around both, where a block of attention has two."""

    def __init__(self, dim: int, mixer: nn.Module, *, mlp_ratio: int, drop_path: float):
        super().__init__()
        self.out_dim = dim
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mixer: Any = mixer
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = ChannelMlp(dim, mlp_ratio * dim, approximate="none")
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return x + self.drop_path(self.mlp(self.norm2(self.mixer(self.norm1(x)))))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside an input of `size` = (B, H, W, C) at the worst moment of inference."""
        n = math.prod(size)
        hidden = n // size[-1] * self.mlp.fc1.out_features
        return max(n + self.mixer.held(size), n + 2 * hidden)


class PositionedMlp(nn.Module):
    """``fc2(GELU(DWConv(fc1(x))))`` (Wang et al., PVTv2, 2022): 3 x 3, each channel by itself."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return apply_linear(self.fc2, apply_gelu(self.act, on_image(self.conv, apply_linear(self.fc1, x))))


class ClassBlock(nn.Module):
    """The mean of a map as its class token, which attends the map and goes through an MLP."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attention = ClassAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = ChannelMlp(dim, mlp_ratio * dim, approximate="none")

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the class token as a map of one position, (B, 1, 1, C)."""
        tokens = x.flatten(1, 2)
        token = tokens.mean(1, keepdim=True)
        token = token + self.attention(self.norm1(torch.cat([token, tokens], 1)))
        return (token + self.mlp(self.norm2(token)))[:, None]
