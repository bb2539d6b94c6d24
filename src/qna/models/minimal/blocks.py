"""What the minimal transformer is made of beside its attention: tokens, the block, and the head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.models._parts.head import ClassifierHead, NoPool
from qna.models._parts.scripting import NotScripted
from qna.models._parts.stem import check_images
from qna.parts.drop_path import DropPath
from qna.parts.minimal_attention import MinimalAttention
from qna.parts.mlp import ChannelMlp
from qna.parts.resize import resize_table


class ClassTokenStem(NotScripted, nn.Module):
    """A class token and each patch through one linear map, with learned positions, in one row of tokens.

    An image is filled up behind its end with zeros, and positions are resized to its patches.
    """

    def __init__(self, in_chans: int, dim: int, *, patch_size: int, map_size: tuple[int, int], drop: float):
        super().__init__()
        self.reduction = patch_size
        self.map_size = map_size
        self.conv = nn.Conv2d(in_chans, dim, patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.randn(1, 1, dim))
        # the first is the class token's
        self.position = nn.Parameter(torch.randn(1, 1 + math.prod(map_size), dim))
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1, 1 + ceil(H / patch) ceil(W / patch), dim)."""
        check_images(x, self.conv)
        patch = self.reduction
        patches = self.conv(F.pad(x, (0, -x.shape[3] % patch, 0, -x.shape[2] % patch))).permute(0, 2, 3, 1)
        table = resize_table(self.position[0, 1:].unflatten(0, self.map_size), patches.shape[1:3])
        patches = (patches + table).flatten(1, 2)
        first = (self.class_token + self.position[:, :1]).expand(x.shape[0], -1, -1)
        return self.drop(torch.cat([first, patches], 1)).unsqueeze(1)

    def no_weight_decay(self) -> set[str]:
        """Names of the class token and the table of positions."""
        return {"class_token", "position"}


class MinimalBlock(nn.Module):
    """``x = norm1(x + attention(x))``, then ``x = norm2(x + mlp(x))`` where there is an MLP.

    Rows of tokens, (B, 1, N, C), for which attention has no second axis to know.

    Args:
        attention: (B, N, C) -> the same.
        hidden: channels of the MLP; 0 for none, nor its norm.
        drop: dropout of both branches, in training.
        drop_path: probability that a branch is left out for an image, in training.
    """

    def __init__(self, attention: MinimalAttention, *, hidden: int, drop: float, drop_path: float):
        super().__init__()
        dim = attention.dim
        self.attention = attention
        self.drop1, self.drop_path1 = nn.Dropout(drop), DropPath(drop_path)
        self.norm1 = nn.LayerNorm(dim)
        self.mlp: ChannelMlp | None = None
        if hidden:
            self.mlp = ChannelMlp(dim, hidden, approximate="none")
            self.drop2, self.drop_path2 = nn.Dropout(drop), DropPath(drop_path)
            self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, N, C) -> the same."""
        attended = self.attention(x[:, 0]).unsqueeze(1)
        x = self.norm1(x + self.drop_path1(self.drop1(attended)))
        if self.mlp is None:
            return x
        return self.norm2(x + self.drop_path2(self.drop2(self.mlp(x))))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside an input of `size` = (B, 1, N, C) at the worst moment of inference.

        While attention runs, or in the MLP: the map, and the hidden channels before and after the activation.
        """
        n = math.prod(size)
        hidden = 0 if self.mlp is None else n // size[-1] * self.mlp.fc1.out_features
        return max(self.attention.held(size), 2 * n, n + 2 * hidden)


class ClassTokenPool(nn.Module):
    """The first token of a row."""

    def __init__(self, dim: int, num_heads: int, map_size: Sequence[int]):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 1 + n, C) -> (B, C)."""
        return x[:, 0, 0]


class PatchTokenMean(ClassTokenPool):
    """The mean of the tokens behind the first."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 1 + n, C) -> (B, C)."""
        return x[:, 0, 1:].mean(1)


class TokenHead(ClassifierHead):
    """A head that reads rows of tokens: "token" takes the class token, "avg" the mean of the others."""

    pools: ClassVar[Mapping[str, Callable[..., Any]]] = {
        "token": ClassTokenPool,
        "avg": PatchTokenMean,
        "": NoPool,
    }
