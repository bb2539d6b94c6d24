"""The block of QnA-ViT: any mixer, then an MLP, each on a normalised map and added to a skip path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.checks import per_axis
from qna._core.errors import InvalidInput
from qna.models._parts.padding import pad_same, same_margins
from qna.ops._shared.window import Window
from qna.parts.initializers import init_linear_
from qna.parts.linear import Linear
from qna.parts.protocols import ShowsRows
from qna.parts.rows import PositionRows, window_sources
from qna.parts.window_softmax import window_softmax

# the LayerNorm epsilon of Flax, in which the authors trained
NORM_EPS = 1e-6


class MixerBlock(nn.Module):
    """``x = skip(x) + mixer(norm(x))``, then ``x = x + mlp(norm(x))``, on maps (B, H, W, C).

    Args:
        dim: channels of the input.
        mixer: a module (B, H, W, dim) -> (B, H', W', mixer.out_dim).
        shortcut: the skip path of a mixer that changes the map's shape; None where it does not.
        drop_path: probability that a branch is left out for an image, in training. With a shortcut only the
            MLP is left out: the map would otherwise lack its mixed half.
        mlp_ratio: hidden channels of the MLP per channel.
    """

    def __init__(
        self,
        dim: int,
        mixer: nn.Module,
        *,
        out_dim: int,
        shortcut: nn.Module | None = None,
        drop_path: float = 0.0,
        mlp_ratio: int = 4,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mixer = mixer
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.drop_path1 = DropPath(drop_path) if shortcut is None else nn.Identity()
        self.norm2 = nn.LayerNorm(out_dim, eps=NORM_EPS)
        self.mlp = ChannelMlp(out_dim, mlp_ratio * out_dim)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C')."""
        x = self.shortcut(x) + self.drop_path1(self.mixer(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def held(self, size: Sequence[int]) -> int:
        """Elements beside an input of `size` = (B, H, W, C) at the worst moment of inference.

        While the mixer runs: its normalised input, and what the skip path made. In the MLP: the map, its
        normalised form, and the hidden channels before and after the activation.
        """
        shortcut, mixer = cast(Any, self.shortcut), cast(Any, self.mixer)
        keeps_map = isinstance(shortcut, nn.Identity)
        out = tuple(size) if keeps_map else shortcut.out_size(size)
        before, after = math.prod(size), math.prod(out)
        hidden = after // out[-1] * self.mlp.fc1.out_features
        return max((0 if keeps_map else after) + before + mixer.held(size), 2 * after + 2 * hidden)

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows | None]:
        """Where each position that comes out looks in `x`, by the mixer and by the skip path.

        None stands for a skip path that keeps every position in its place, as the MLP does.

        Raises:
            InvalidInput: if the mixer shows no attention.
        """
        if not isinstance(self.mixer, ShowsRows):
            raise InvalidInput(f"{type(self.mixer).__name__} shows no attention")
        rows, shortcut = self.mixer.attention_rows(self.norm1(x)), cast(Any, self.shortcut)
        return rows, None if isinstance(shortcut, nn.Identity) else shortcut.position_rows(x)


class ChannelMlp(nn.Module):
    """Two linear maps of the channels with a GELU (its tanh form, as in Flax) between them."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = Linear(hidden, dim)
        init_linear_(self.fc1)
        init_linear_(self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.fc2(self.act(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): branches of some images are left out.

    In training, each image's branch is zero with probability `rate`, and divided by ``1 - rate`` where kept.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training or self.rate == 0:
            return x
        keep = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * (keep / (1 - self.rate))

    def extra_repr(self) -> str:
        """The rate."""
        return f"{self.rate:.3g}"


class StridedShortcut(nn.Module):
    """Skip path of a strided mixer: a 1x1 convolution at stride `stride`, of every `stride`-th position."""

    def __init__(self, dim: int, out_dim: int, *, stride: int):
        super().__init__()
        self.stride = stride
        self.proj = Linear(dim, out_dim, bias=False)
        init_linear_(self.proj)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, ceil(H / stride), ceil(W / stride), out_dim)."""
        return self.proj(x[:, :: self.stride, :: self.stride])

    def out_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Shape of what comes out of a map of `size`."""
        return _strided_size(size, self.stride, self.proj)

    def position_rows(self, x: Tensor) -> PositionRows:
        """Which positions of `x` each position that comes out is made of."""
        return _even_rows(x, 1, self.stride, 0)


class AveragePoolShortcut(nn.Module):
    """Skip path of a strided mixer: the mean of a window at stride `stride`, then a 1x1 convolution.

    Zero padding counts in the mean, as in Flax.
    """

    def __init__(self, dim: int, out_dim: int, *, stride: int, window: int):
        super().__init__()
        self.stride = stride
        self.window = window
        self.proj = Linear(dim, out_dim, bias=False)
        init_linear_(self.proj)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, ceil(H / stride), ceil(W / stride), out_dim)."""
        padded = pad_same(x.permute(0, 3, 1, 2), self.window, self.stride)
        return self.proj(F.avg_pool2d(padded, self.window, self.stride).permute(0, 2, 3, 1))

    def out_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Shape of what comes out of a map of `size`."""
        return _strided_size(size, self.stride, self.proj)

    def position_rows(self, x: Tensor) -> PositionRows:
        """Which positions of `x` each position that comes out is made of; padding is left out."""
        before = [same_margins(n, self.window, self.stride)[0] for n in x.shape[1:3]]
        return _even_rows(x, self.window, self.stride, before)


def _strided_size(size: Sequence[int], stride: int, proj: nn.Linear) -> tuple[int, ...]:
    batch, height, width, _ = size
    return batch, -(-height // stride), -(-width // stride), proj.out_features


def _even_rows(x: Tensor, kernel: int, stride: int, before: int | Sequence[int]) -> PositionRows:
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
