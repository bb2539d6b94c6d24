"""The cells of ViTAEv2, in which convolutions run beside the attention (Zhang et al., IJCV 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna.mixers import VariedSizeWindowAttention2d
from qna.models._parts.position import PositionConvolution
from qna.models._parts.scripting import NotScripted
from qna.models._parts.stem import check_images
from qna.models.vsa.blocks import CPE_SIZE, VariedSizeBlock
from qna.parts.image_view import as_image
from qna.parts.mlp import ChannelMlp

# of both norms of a reduction cell; the trap: those of normal cells have the other
REDUCTION_EPS, NORMAL_EPS = 1e-5, 1e-6


class ParallelConvolutions(nn.Sequential):
    """Three convolutions of 3x3, batch norm and SiLU between them: the branch beside the attention.

    Args:
        channels: of the input, behind the first and the second convolution, and of the output.
        groups: of each convolution.
        strides: of each convolution.
    """

    def __init__(self, channels: Sequence[int], *, groups: int, strides: Sequence[int] = (1, 1, 1)):
        first, second, third = (
            nn.Conv2d(a, b, 3, stride=stride, padding=1, groups=groups)
            for (a, b), stride in zip(pairwise(channels), strides, strict=True)
        )
        norms = (nn.BatchNorm2d(width) for width in channels[1:3])
        super().__init__(first, next(norms), nn.SiLU(), second, next(norms), nn.SiLU(), third)

    def forward(self, input: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C')."""
        return super().forward(as_image(input)).movedim(1, -1)


class NormalCell(VariedSizeBlock):
    """``x = x + mixer(norm(cpe(x))) + convolutions(x)``, then ``x = x + mlp(norm(x))``, on maps (B, H, W, C).

    The convolutions see neither the norm nor the embedding of positions. Arguments as `MixerBlock`, and the
    groups of the convolutions.
    """

    def __init__(self, dim: int, mixer: nn.Module, *, groups: int, mlp_ratio: int, **options: Any):
        super().__init__(dim, mixer, mlp_ratio=mlp_ratio, norm_eps=NORMAL_EPS, gelu="none", **options)
        self.convolutions = ParallelConvolutions((dim, mlp_ratio * dim, dim, dim), groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        # in training each branch has its own draw
        convolved = self.drop_path1(self.convolutions(x))
        return self.mixed(self.shortcut(x) + self.attended(x) + convolved)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside an input of `size` = (B, H, W, C) at the worst moment of inference.

        As in any block; or beside what was attended two maps of the convolutions' hidden channels.
        """
        n = math.prod(size)
        return max(super().held(size), n + 2 * n // size[-1] * self.mlp.fc1.out_features)


class DilatedConvolutions(nn.Module):
    """A pyramid reduction: convolutions of several dilations at one stride, each with a GELU."""

    def __init__(self, dim: int, out_dim: int, *, kernel_size: int, stride: int, dilations: Sequence[int]):
        super().__init__()
        # no list of modules, which would have a name and never be called
        for number, dilation in enumerate(dilations, start=1):
            reach = (kernel_size - 1) * dilation + 1
            padding = max(0, -(-(reach - stride) // 2))
            convolution = nn.Conv2d(
                dim, out_dim, kernel_size, stride=stride, padding=padding, dilation=dilation
            )
            self.add_module(f"dilated{number}", convolution)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), the stride divides H and W -> (B, H / stride, W / stride, dilations * out_dim)."""
        return torch.cat([F.gelu(convolution(x)) for convolution in self.children()], 1).movedim(1, -1)


class ReductionCell(NotScripted, nn.Module):
    """What begins a stage: a map at several dilations, attended; beside it convolutions at strides::

        y = mixer(norm(cpe(pyramid(x)))) + convolutions(x)
        y = y + mlp(norm(y))

    A map that the stride does not divide is filled up behind its end with zeros.

    Args:
        dim: channels of the input.
        out_dim: channels of the output.
        embed_dim: channels of the pyramid per dilation.
        hidden: channels between the convolutions.
        groups: of the convolutions.
        reduction: positions per axis that become one, 2 or 4.
        kernel_size: of the pyramid's convolutions.
        dilations: of each of them.
        windows: how the attention is built, beside its channels.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        *,
        embed_dim: int,
        hidden: int,
        groups: int,
        reduction: int,
        kernel_size: int,
        dilations: Sequence[int],
        windows: dict[str, Any],
    ):
        super().__init__()
        self.reduction = reduction
        inner = embed_dim * len(dilations)
        self.pyramid = DilatedConvolutions(
            dim, embed_dim, kernel_size=kernel_size, stride=reduction, dilations=dilations
        )
        self.cpe = PositionConvolution(inner, kernel_size=CPE_SIZE)
        self.norm1 = nn.LayerNorm(inner, eps=REDUCTION_EPS)
        self.mixer = VariedSizeWindowAttention2d(inner, out_dim=out_dim, **windows)
        strides = (2, 2, 1) if reduction == 4 else (2, 1, 1)
        self.convolutions = ParallelConvolutions(
            (dim, hidden, hidden, out_dim), groups=groups, strides=strides
        )
        self.norm2 = nn.LayerNorm(out_dim, eps=REDUCTION_EPS)
        self.mlp = ChannelMlp(out_dim, out_dim, approximate="none")

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / reduction), ceil(W / reduction), out_dim)."""
        x = F.pad(x, (0, 0, 0, -x.shape[2] % self.reduction, 0, -x.shape[1] % self.reduction))
        y = self.mixer(self.norm1(self.cpe(self.pyramid(as_image(x))))) + self.convolutions(x)
        return y + self.mlp(self.norm2(y))


class CellStem(ReductionCell):
    """A reduction cell of images."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(H / reduction), ceil(W / reduction), out_dim)."""
        check_images(x, self.pyramid.get_submodule("dilated1"))  # type: ignore[arg-type]
        return super().forward(x.movedim(1, -1))
