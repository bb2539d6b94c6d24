"""Skip paths of blocks that change the size of the map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.checks import per_axis
from qna.models._parts.padding import pad_same, same_margins
from qna.ops._shared.window import Window
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.rows import PositionRows, window_sources
from qna.parts.window_softmax import window_softmax


class StridedShortcut(nn.Module):
    """Skip path of a strided mixer: a 1x1 convolution at stride `stride`, of every `stride`-th position."""

    def __init__(self, dim: int, out_dim: int, *, stride: int):
        super().__init__()
        self.stride = stride
        self.proj = nn.Linear(dim, out_dim, bias=False)
        init_linear_(self.proj)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, ceil(H / stride), ceil(W / stride), out_dim)."""
        return apply_linear(self.proj, x[:, :: self.stride, :: self.stride])

    def out_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Shape of what comes out of a map of `size`."""
        return strided_size(size, self.stride, self.proj.out_features)

    def position_rows(self, x: Tensor) -> PositionRows:
        """Which positions of `x` each position that comes out is made of."""
        return even_rows(x, 1, self.stride, 0)


class AveragePoolShortcut(nn.Module):
    """Skip path of a strided mixer: the mean of a window at stride `stride`, then a 1x1 convolution.

    Zero padding counts in the mean, as in Flax.
    """

    def __init__(self, dim: int, out_dim: int, *, stride: int, window: int):
        super().__init__()
        self.stride = stride
        self.window = window
        self.proj = nn.Linear(dim, out_dim, bias=False)
        init_linear_(self.proj)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, ceil(H / stride), ceil(W / stride), out_dim)."""
        padded = pad_same(x.permute(0, 3, 1, 2), self.window, self.stride)
        pooled = F.avg_pool2d(padded, self.window, self.stride)
        return apply_linear(self.proj, pooled.permute(0, 2, 3, 1))

    def out_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Shape of what comes out of a map of `size`."""
        return strided_size(size, self.stride, self.proj.out_features)

    def position_rows(self, x: Tensor) -> PositionRows:
        """Which positions of `x` each position that comes out is made of; padding is left out."""
        before = [same_margins(n, self.window, self.stride)[0] for n in x.shape[1:3]]
        return even_rows(x, self.window, self.stride, before)


class RepeatedShortcut(nn.Module):
    """Skip path of an up-sampling mixer: a 1x1 convolution, whose every position is repeated in a square."""

    def __init__(self, dim: int, out_dim: int, *, factor: int):
        super().__init__()
        self.factor = factor
        self.proj = nn.Linear(dim, out_dim, bias=False)
        init_linear_(self.proj)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, factor H, factor W, out_dim)."""
        x = apply_linear(self.proj, x)
        return x.repeat_interleave(self.factor, 1).repeat_interleave(self.factor, 2)

    def out_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Shape of what comes out of a map of `size`."""
        batch, height, width, _ = size
        return batch, self.factor * height, self.factor * width, self.proj.out_features

    def position_rows(self, x: Tensor) -> PositionRows:
        """Which position of `x` each position that comes out repeats."""
        batch, height, width, _ = x.shape
        places = torch.arange(height * width, device=x.device).view(1, height, width)
        sources = places.repeat_interleave(self.factor, 1).repeat_interleave(self.factor, 2).reshape(-1, 1)
        return PositionRows(torch.ones(batch, len(sources), 1, device=x.device), sources)


def strided_size(size: Sequence[int], stride: int, out_dim: int) -> tuple[int, ...]:
    """Shape of a map of `size` = (B, H, W, C) at a stride, rounded up, with `out_dim` channels."""
    batch, height, width, _ = size
    return batch, -(-height // stride), -(-width // stride), out_dim


def even_rows(x: Tensor, kernel: int, stride: int, before: int | Sequence[int]) -> PositionRows:
    """Rows of windows over the map `x` that look at all their positions alike."""
    size = x.shape[1:3]
    window = Window(
        (kernel, kernel),
        (stride, stride),
        (1, 1),
        per_axis("before", before, 2, minimum=0),
        tuple(-(-n // stride) for n in size),
    )
    sources = window_sources(size, window, x.device)
    alike = torch.zeros(1, *size, 1, 1, device=x.device)
    shares = window_softmax(alike, alike.new_zeros(kernel, kernel, 1, 1), window)
    return PositionRows(shares.flatten(1, 4).flatten(2).expand(len(x), -1, -1), sources)


# name -> skip path of (dim, out_dim, stride, window of the strided mixer)
SHORTCUTS = {
    "conv1x1": lambda dim, out_dim, stride, window: StridedShortcut(dim, out_dim, stride=stride),
    "avgpool": lambda dim, out_dim, stride, window: AveragePoolShortcut(
        dim, out_dim, stride=stride, window=window
    ),
}
