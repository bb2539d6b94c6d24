"""Stand-alone self-attention: each position attends the window around it, by content and by offset."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.checks import per_axis
from qna._core.errors import InvalidInput
from qna.mixers.row import Example, MixerRow, Traits
from qna.ops import neighborhood_attention, neighborhood_qk
from qna.ops._shared.window import Window
from qna.parts.head_gate import GatedHeads
from qna.parts.initializers import init_linear_, truncated_normal_
from qna.parts.linear import apply_linear
from qna.parts.reach import Reach
from qna.parts.rows import PositionRows, received, window_sources


class StandAloneAttention2d(GatedHeads, nn.Module):
    """Local self-attention with relative embeddings (SASA; Ramachandran et al., NeurIPS 2019, section 3).

    For position (i, j), over the positions (a, b) of the k x k window around it that lie in the map::

        s[a, b] = q[i, j] . k[a, b] + q[i, j] . r[a - i, b - j]
        y[i, j] = sum_(a, b) softmax(s)[a, b] v[a, b]

    r is a row embedding and a column embedding, each of half a head's channels, one after the other. Scores
    are not divided by the root of the head's channels, and there is no output projection: the layer stands
    where a convolution stood, between two of one tap. Two traps of copies in the wild: an embedding that is
    added to the values, and halves of all channels in the place of halves of each head's.

    The offset's part of a score is carried by the dot product itself: a key holds which row and which column
    it is in, modulo the window, as two one-hot vectors, and a query its products with the embeddings, turned
    round likewise. So the windows need not be stored. With n positions, C channels, h heads and K = k^2 it
    costs ``3 n C^2 + n k C + n K (2 C + 2 k h)`` multiply-adds.

    Open in the public text and chosen here: heads share the embeddings, and heads are groups of channels of
    projections of all channels. (With those a ResNet-50 loses 29 % of its parameters, as the abstract says.)

    Args:
        dim: channels of the input.
        num_heads: heads; divides `out_dim` into an even number of channels.
        kernel_size: k, odd; one per axis where they differ.
        out_dim: channels of the output; None for `dim`.
        bias: whether queries, keys and values have a bias.

    Raises:
        InvalidInput: a head would have an odd number of channels, or a window is even.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        kernel_size: int | Sequence[int] = 7,
        out_dim: int | None = None,
        bias: bool = False,
    ):
        super().__init__()
        name = type(self).__name__
        checks.positive(name, dim=dim)
        self.dim = dim
        self.out_dim = dim if out_dim is None else out_dim
        self.num_heads = num_heads
        head_dim = checks.head_dim(name, self.out_dim, num_heads)
        if head_dim % 2:
            raise InvalidInput(
                f"{name}: half a head's channels are for rows and half for columns, and {num_heads} heads of "
                f"{self.out_dim} channels have {head_dim}, an odd number"
            )
        self.kernel_size = per_axis("kernel_size", kernel_size, 2, minimum=1)
        if any(k % 2 == 0 for k in self.kernel_size):
            raise InvalidInput(f"{name}: kernel_size must be odd, got {self.kernel_size}")
        self.qkv = nn.Linear(dim, 3 * self.out_dim, bias=bias)
        init_linear_(self.qkv)
        # of every offset from a query to a key, those before it first
        self.row_embedding = nn.Parameter(torch.empty(self.kernel_size[0], head_dim // 2))
        self.column_embedding = nn.Parameter(torch.empty(self.kernel_size[1], head_dim // 2))
        for table in (self.row_embedding, self.column_embedding):
            truncated_normal_(table, head_dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, out_dim)."""
        query, key, value = self._maps(x)
        attended = neighborhood_attention(
            query, key, value, kernel_size=self.kernel_size, border="mask", scale=1.0
        )
        return self._gated(x, attended.flatten(-2))

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every position over its window: (B, H, W, h, *kernel), at least fp32; 0 outside."""
        query, key, _ = self._maps(x)
        dtype = torch.promote_types(x.dtype, torch.float32)
        scores = neighborhood_qk(
            query.to(dtype), key.to(dtype), kernel_size=self.kernel_size, border="mask", scale=1.0
        )
        return scores.softmax(-1).unflatten(-1, self.kernel_size)

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all windows over what it gets where they are even: (B, H, W)."""
        rows = self.attention_rows(x)
        inside = self._inside(x).to(rows.shares.dtype)
        return received(rows, inside / inside.sum(-1, keepdim=True), x.shape[1] * x.shape[2]).view(
            x.shape[:3]
        )

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each position looks in its window: the softmax, mean over heads."""
        shares = self.attention_map(x).mean(3).flatten(3).flatten(1, 2)
        return PositionRows(shares, window_sources(x.shape[1:3], self._window(x.shape), x.device))

    def no_weight_decay(self) -> set[str]:
        """Names of the position embeddings."""
        return {"row_embedding", "column_embedding"}

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), windows counted as if they were whole."""
        n, taps = math.prod(size[:-1]), sum(self.kernel_size)
        of_window = math.prod(self.kernel_size) * (2 * self.out_dim + taps * self.num_heads)
        return n * (3 * self.dim * self.out_dim + taps * self.out_dim // 2 + of_window)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys, values, the first two with offsets, and the output."""
        offsets = 2 * self.num_heads * sum(self.kernel_size)
        return math.prod(size[:-1]) * (6 * self.out_dim + offsets)

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """The windows."""
        return tuple(Reach.of_window(k, before=k // 2) for k in self.kernel_size)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, num_heads={self.num_heads}, kernel_size={self.kernel_size}"

    def _maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys that carry their offsets, (B, H, W, h, d + sum of the kernel), and values."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        query, key, value = apply_linear(self.qkv, x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        by_row, by_column = query.chunk(2, -1)
        down, at_row = self._turned(self.row_embedding, x.shape[1])
        across, at_column = self._turned(self.column_embedding, x.shape[2])
        offsets = (
            torch.einsum("bijhd,ikd->bijhk", by_row, down),
            torch.einsum("bijhd,jkd->bijhk", by_column, across),
        )
        shape = key.shape[:-1]
        places = (
            at_row.to(key.dtype)[:, None, None].expand(*shape, -1),
            at_column.to(key.dtype)[:, None].expand(*shape, -1),
        )
        return torch.cat([query, *offsets], -1), torch.cat([key, *places], -1), value

    @staticmethod
    def _turned(table: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Along an axis: of each query its embeddings by the key's place modulo the window; and those places.

        In a window of k positions every place modulo k occurs once.
        """
        k = len(table)
        place = torch.arange(size, device=table.device)
        # the key at place r modulo k is r - i steps away, up to a multiple of k
        offset = (torch.arange(k, device=table.device) - place[:, None] + k // 2) % k
        return table[offset], F.one_hot(place % k, k)

    def _window(self, size: Sequence[int]) -> Window:
        before = tuple(k // 2 for k in self.kernel_size)
        return Window(self.kernel_size, (1, 1), (1, 1), before, tuple(size[1:3]))

    def _inside(self, x: Tensor) -> Tensor:
        """Which taps of each window lie in the map: (H W, taps)."""
        axes = (
            torch.arange(n, device=x.device)[:, None] + torch.arange(k, device=x.device) - k // 2
            for n, k in zip(x.shape[1:3], self.kernel_size, strict=True)
        )
        down, across = ((at >= 0) & (at < n) for at, n in zip(axes, x.shape[1:3], strict=True))
        return (down[:, None, :, None] & across[:, None]).flatten(2).flatten(0, 1)


ROW = MixerRow(
    StandAloneAttention2d,
    About(
        title="Stand-Alone Self-Attention in Vision Models",
        authors="Ramachandran, Parmar, Vaswani et al.",
        venue="NeurIPS 2019",
        arxiv="1906.05909",
        read="the abstract, and what copies make of its equations; the authors' repository holds no code",
        differs="how heads share projections and embeddings is our choice; the paper halves maps by average "
        "pooling after the layer, which is left to the network; its stem is not here",
        status="after",
    ),
    Example((5, 7), {"num_heads": 2, "kernel_size": (3, 5)}),
    Traits(2, heads=True),
)
