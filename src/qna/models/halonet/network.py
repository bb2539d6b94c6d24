"""HaloNet: a ResNet of bottlenecks in which halo attention stands where the 3 x 3 convolution stood."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.mixers import HaloAttention2d
from qna.models._parts.block import drop_path_rates
from qna.models._parts.hierarchy import Stage
from qna.models._parts.scripting import NotScripted
from qna.models._parts.shortcut import even_rows, strided_size
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models._parts.stem import check_images
from qna.models.halonet.variants import HaloNetVariant
from qna.parts.drop_path import DropPath
from qna.parts.image_view import as_image, every_nth
from qna.parts.initializers import init_linear_, lecun_normal_
from qna.parts.linear import apply_linear
from qna.parts.open_size import is_open
from qna.parts.rows import PositionRows


class ChannelNorm(nn.Module):
    """Batch norm of a map (B, H, W, C), then a ReLU where it is asked for."""

    def __init__(self, dim: int, *, relu: bool):
        super().__init__()
        self.norm = nn.BatchNorm2d(dim)
        self.act = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        normed = self.norm(as_image(x)).movedim(1, -1)
        if any(map(is_open, x.shape)):
            # a recorder would compare the order in memory of what follows with sizes
            normed = normed.clone(memory_format=torch.contiguous_format)
        return self.act(normed)


class LinearNorm(nn.Module):
    """A linear map of every `stride`-th position's channels, batch norm, and a ReLU where it is asked for."""

    def __init__(self, dim: int, out_dim: int, *, stride: int = 1, relu: bool = False):
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(dim, out_dim, bias=False)
        self.norm = ChannelNorm(out_dim, relu=relu)
        init_linear_(self.linear)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, ceil(H / stride), ceil(W / stride), out_dim)."""
        return self.norm(apply_linear(self.linear, every_nth(x, self.stride)))


class HaloStem(NotScripted, nn.Module):
    """A 7x7 convolution at stride 2, batch norm, ReLU and a 3x3 maximum at stride 2, padded on all sides."""

    reduction = 4

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, dim, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        lecun_normal_(self.conv.weight, in_chans * 49)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H / 4), ceil(W / 4), dim)."""
        check_images(x, self.conv)
        x = F.relu(self.norm(self.conv(x)))
        return F.max_pool2d(x, 3, stride=2, padding=1).permute(0, 2, 3, 1).contiguous()


class HaloBlock(nn.Module):
    """A bottleneck: ``relu(skip(x) + expand(attention(reduce(x))))``, each followed by batch norm.

    Args:
        dim: channels of the input.
        attention: of the reduced map; its stride is the block's.
        out_dim: channels of the output.
        drop_path: probability that all but the skip path is left out for an image, in training.
    """

    def __init__(self, dim: int, attention: HaloAttention2d, *, out_dim: int, drop_path: float):
        super().__init__()
        stride = attention.stride
        self.out_dim = out_dim
        keeps = stride == 1 and dim == out_dim
        # a skip path with a stride is always projected, as its positions are others
        self.shortcut = nn.Identity() if keeps else LinearNorm(dim, out_dim, stride=stride)
        self.reduce = LinearNorm(dim, attention.dim, relu=True)
        self.mixer = attention
        self.mixer_norm = ChannelNorm(attention.out_dim, relu=True)
        self.expand = LinearNorm(attention.out_dim, out_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), C')."""
        attended = self.mixer_norm(self.mixer(self.reduce(x)))
        return F.relu(self.shortcut(x) + self.drop_path(self.expand(attended)))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside an input of `size` = (B, H, W, C) at the worst moment of inference, the attention.

        While it runs the map that it reads is held, and what the skip path made where that is projected.
        """
        reduced = (*size[:3], self.mixer.dim)
        projected = math.prod(strided_size(size, self.mixer.stride, self.out_dim))
        keeps = isinstance(self.shortcut, nn.Identity)
        return math.prod(reduced) + self.mixer.held(reduced) + (0 if keeps else projected)

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows | None]:
        """Where each position that comes out looks in `x`, by the attention and by the skip path.

        None stands for a skip path that keeps every position in its place.
        """
        rows, stride = self.mixer.attention_rows(self.reduce(x)), self.mixer.stride
        return rows, None if stride == 1 else even_rows(x, 1, stride, 0)


class HaloNet(SizedHierarchy):
    """HaloNet (Vaswani et al., CVPR 2021) with timm's contract.

    Images (B, in_chans, H, W) of any height and width, where timm's takes multiples of 32 times the block:
    maps are rounded up where they are halved, and a block of attention that the map does not fill has the
    rest outside, where its halo is as well (see `HaloAttention2d`). So an H7, whose maps at 600 pixels are
    150, 75, 38 and 19 positions wide with blocks of 10, needs no padding of the image.

    Open in the public text and chosen here: what lies outside takes its share of the softmax, the products
    with the embeddings are not scaled, heads share them, and the last linear map of H3 and above ends in a
    ReLU; all as in timm. Heads differ: 4, 8, 8, 8 here, 8 everywhere in timm.
    """

    @staticmethod
    def parts(variant: HaloNetVariant, in_chans: int) -> Parts:
        """Its parts."""
        dim = variant.widths[0]
        stem = HaloStem(in_chans, dim)
        rates = drop_path_rates(variant.drop_path_rate, sum(variant.blocks))
        stages = []
        for i, blocks in enumerate(variant.blocks):
            stage, out_dim = Stage(), variant.out_dim(i)
            for number in range(blocks):
                attention = variant.attention(i, stride=2 if i and not number else 1)
                stage.append(HaloBlock(dim, attention, out_dim=out_dim, drop_path=next(rates)))
                dim = out_dim
            stages.append(stage)
        return Parts(
            stem,
            stages,
            dims=[variant.out_dim(i) for i in range(len(stages))],
            strides=[2 if i else 1 for i in range(len(stages))],
            norm=nn.Identity(),
            pool_heads=variant.heads[-1],
        )

    def finish(self, variant: HaloNetVariant) -> None:
        """Put the last linear map of H3 and above before the head."""
        if variant.final_dim is not None:
            self.norm = LinearNorm(self.num_features, variant.final_dim, relu=True)
            self.num_features = self.head_hidden_size = variant.final_dim
            self.head.follow(variant.final_dim, self._map_sizes[-1])
            self.head.reset(self.num_classes, self.global_pool)
