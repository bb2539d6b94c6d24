"""Gating by a token mixer: a block of an MLP-Mixer makes what multiplies a linear map of each position."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.checks import per_axis
from qna._core.errors import InvalidInput
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.linear import apply_linear
from qna.parts.mlp import ChannelMlp


class MixerGating2d(nn.Module):
    """The mixer gating unit of NiNformer (Abdullah and Aydin, 2024), of maps of one size.

    A block of an MLP-Mixer, with its own norms and skip paths, makes the gate::

        u = z + T(LN(z))       T along the n positions: n -> hidden -> n, the same for every channel
        g = u + M(LN(u))       M along the C channels: C -> hidden -> C
        y = P(z) * g           element by element; P linear

    T and M have an exact GELU between two linear maps. T has a weight for each position, so that the map's
    size is fixed. With n positions and C channels it costs ``n C (4 hidden + C)`` multiply-adds.

    Args:
        dim: channels of input and output.
        map_size: height and width of the maps; an integer for both.
        hidden: hidden positions of T and hidden channels of M; None for 2 `dim`, as published.
        drop: dropout behind GELU and second linear map of T and M, in training.

    Raises:
        InvalidInput: a size is not positive, `drop` is no rate below 1, or a map has another size.
    """

    def __init__(
        self, dim: int, *, map_size: int | Sequence[int], hidden: int | None = None, drop: float = 0.0
    ):
        super().__init__()
        self.map_size = per_axis("map_size", map_size, 2, minimum=1)
        hidden = 2 * dim if hidden is None else hidden
        checks.positive(type(self).__name__, dim=dim, hidden=hidden)
        self.dim = self.out_dim = dim
        self.token_norm = nn.LayerNorm(dim)
        self.token_mlp = ChannelMlp(math.prod(self.map_size), hidden, approximate="none", drop=drop)
        self.channel_norm = nn.LayerNorm(dim)
        self.channel_mlp = ChannelMlp(dim, hidden, approximate="none", drop=drop)
        self.proj = nn.Linear(dim, dim)
        for mlp in (self.token_mlp, self.channel_mlp):
            # all linear maps begin as torch makes them, as the authors' do
            mlp.fc1.reset_parameters()
            mlp.fc2.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> the same; H and W are those of `map_size`."""
        self._check(x)
        return apply_linear(self.proj, x) * self.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """What multiplies the linear map of `x`, of the same shape."""
        self._check(x)
        tokens = self.token_norm(x).flatten(1, 2).transpose(1, 2)
        mixed = x + self.token_mlp(tokens).transpose(1, 2).reshape(x.shape)
        # the skip path is around the norm, so that at first the gate is near the input itself
        return mixed + self.channel_mlp(self.channel_norm(mixed))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim)."""
        hidden = self.channel_mlp.fc1.out_features
        return math.prod(size) * (4 * hidden + self.dim)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: the linear map, and in an MLP the hidden ones before and after the GELU.

        Along positions they are `hidden` a channel, beside the normalised map twice (once turned over); along
        channels `hidden` a position, beside what is mixed and normalised.
        """
        batch, height, width, dim = size
        n, hidden = math.prod(size), self.channel_mlp.fc1.out_features
        return n + max(2 * n + 2 * batch * dim * hidden, 2 * n + 2 * batch * height * width * hidden)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, map_size={self.map_size}"

    def _check(self, x: Tensor) -> None:
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        if tuple(x.shape[1:3]) != self.map_size:
            rows, columns = x.shape[1:3]
            own = " x ".join(map(str, self.map_size))
            raise InvalidInput(
                f"{type(self).__name__}: it has a weight for each of the {own} positions of its maps and "
                f"takes no other size, got {rows} x {columns}; resize the map, or build it with "
                f"map_size=({rows}, {columns})"
            )


ROW = MixerRow(
    MixerGating2d,
    About(
        title="NiNformer: A Network in Network Transformer with Token Mixing as a Gating Function Generator",
        authors="Abdullah, Aydin",
        venue="Neural Computing and Applications 2025",
        arxiv="2403.02411",
        read="the authors' code, Abdullah-88/NiNformer at 0ec85d4 (BSD-3-Clause)",
        differs="maps keep their two axes, and one of as many positions but another shape is refused, which "
        "theirs takes for the same",
        status="exact",
    ),
    Example((4, 4), {"map_size": 4}),
    Traits(2, any_size=False),
    {"compiles_with_inductor_and_dynamic_sizes": "it has a weight for each position of maps of one size"},
)
