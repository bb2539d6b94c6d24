"""Halo attention: non-overlapping blocks of queries, overlapping windows of keys."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput, check_choice
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.attend import attend
from qna.parts.head_gate import GatedHeads
from qna.parts.image_view import every_nth
from qna.parts.initializers import init_linear_, truncated_normal_
from qna.parts.linear import apply_linear
from qna.parts.open_size import part_of
from qna.parts.reach import Reach
from qna.parts.rows import PositionRows, received

BORDERS = ("zero", "mask")
TABLES = ("offsets", "window")


class HaloAttention2d(GatedHeads, nn.Module):
    """Blocked local attention with a halo (Vaswani et al., CVPR 2021), on maps of any height and width.

    All queries of a block of b x b positions attend the same window: the block and h positions around it,
    (b + 2 h) x (b + 2 h) in all. For query i and key j of head n, with offsets in rows dy and in columns dx::

        s[i, j] = q[i] . k[j] / sqrt(d) + q[i] . r_rows[dy] + q[i] . r_columns[dx]
        y[i]    = sum_j softmax_j(s[i, j]) v[j]

    The embeddings r are factorised per axis and shared by all heads. There is no output projection: in a
    HaloNet a convolution of one tap follows. Blocks begin at the map's start; of a last block that the map
    does not fill the rest is outside, as the halo is there.

    With a stride s every s-th query of a block is kept, per axis, and all keys: a layer that halves the map
    costs a quarter of the attention, and gives what the whole layer gives at those positions.

    With n positions of C channels, n' queries, windows of K = (b + 2 h)^2 keys, D channels of keys and V of
    values it costs ``n' C D + n C (D + V) + n' (2 (b + 2 h) D + K (D + V))`` multiply-adds.

    Args:
        dim: channels of the input.
        num_heads: heads; divides the channels of keys and those of values.
        block_size: b, queries per axis of a block.
        halo_size: h; 0 for windows that do not overlap.
        stride: positions of the input per position of the output; divides `block_size`.
        out_dim: V, channels of values and output; None for `dim`.
        key_dim: D, channels of queries and keys; None for `dim`.
        border: "zero": what lies outside are keys and values of zeros, which take their share of the softmax
            (timm's, and the default: the paper is not known to mask). "mask": it is not attended.
        tables: rows of the embeddings. "offsets": one for each offset that occurs, 2 b + 2 h - 1. "window":
            timm's 2 (b + 2 h) - 1, of which 2 h are never used; with a stride a query counts there by its
            place among the queries kept, so that one step of it is one row and not `stride` of them.
        scale_embeddings: divide the products with the embeddings by sqrt(d) as well.
        bias: whether queries, keys and values have a bias; zeros outside the map have none.

    Raises:
        InvalidInput: heads do not divide the channels, `stride` does not divide `block_size`, a size is not
            positive, or a choice is unknown.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        block_size: int = 8,
        halo_size: int = 3,
        stride: int = 1,
        out_dim: int | None = None,
        key_dim: int | None = None,
        border: str = "zero",
        tables: str = "offsets",
        scale_embeddings: bool = False,
        bias: bool = False,
    ):
        super().__init__()
        name = type(self).__name__
        checks.positive(name, dim=dim, block_size=block_size, stride=stride)
        checks.natural(name, halo_size=halo_size)
        if block_size % stride:
            raise InvalidInput(f"{name}: stride must divide block_size={block_size}, got {stride}")
        self.dim = dim
        self.out_dim = dim if out_dim is None else out_dim
        self.key_dim = dim if key_dim is None else key_dim
        self.num_heads, self.block_size, self.halo_size, self.stride = (
            num_heads,
            block_size,
            halo_size,
            stride,
        )
        self.border = check_choice("border", border, BORDERS)
        self.tables = check_choice("tables", tables, TABLES)
        self.scale_embeddings = scale_embeddings
        head_dim = checks.head_dim(name, self.key_dim, num_heads)
        checks.head_dim(name, self.out_dim, num_heads)
        self.q = nn.Linear(dim, self.key_dim, bias=bias)
        # head by head its key and its value
        self.kv = nn.Linear(dim, self.key_dim + self.out_dim, bias=bias)
        rows = 2 * (block_size + halo_size if tables == "offsets" else self.window) - 1
        self.row_embedding = nn.Parameter(torch.empty(rows, head_dim))
        self.column_embedding = nn.Parameter(torch.empty(rows, head_dim))
        init_linear_(self.q)
        init_linear_(self.kv)
        for table in (self.row_embedding, self.column_embedding):
            truncated_normal_(table, head_dim**-0.5)

    @property
    def window(self) -> int:
        """Keys per axis of a window."""
        return self.block_size + 2 * self.halo_size

    @property
    def window_size(self) -> tuple[int, int]:
        """Height and width of a window."""
        return self.window, self.window

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, ceil(H / stride), ceil(W / stride), out_dim)."""
        query, key, value, bias = self._blocks(x)
        # blocks lie in the batch: with four axes torch does not form the scores
        attended = attend(*(t.flatten(0, 2) for t in (query, key, value, bias)))
        return self._gated(x, self._unblock(attended.unflatten(0, query.shape[:3]), x.shape))

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every query over its window: (B, H', W', h, b + 2 halo, b + 2 halo), at least fp32.

        What zeros outside the map take is where they would lie; what is masked is 0.
        """
        query, key, _, bias = self._blocks(x)
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias
        shares = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
        window = (self.window, self.window)
        return self._unblock(shares, x.shape).unflatten(-1, (self.num_heads, *window))

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all windows over what it gets where they are even: (B, H, W)."""
        rows, inside = self._rows(x)
        seen = inside.sum(-1, keepdim=True) if self.border == "mask" else self.window**2
        inside = inside.to(rows.shares.dtype)
        return received(rows, inside / seen, x.shape[1] * x.shape[2]).view(x.shape[:3])

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each query looks: the softmax, mean over heads. What zeros outside take is left out."""
        return self._rows(x)[0]

    def why_no_head_gate(self) -> str:
        """It takes them where every position asks."""
        return "" if self.stride == 1 else f"with stride={self.stride} it makes fewer positions than it reads"

    def no_weight_decay(self) -> set[str]:
        """Names of the position embeddings."""
        return {"row_embedding", "column_embedding"}

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), blocks counted as if they were whole."""
        batch, height, width, dim = size
        kept = -(-height // self.stride) * -(-width // self.stride)
        projected = kept * dim * self.key_dim + height * width * dim * (self.key_dim + self.out_dim)
        of_window = 2 * self.window * self.key_dim + self.window**2 * (self.key_dim + self.out_dim)
        return batch * (projected + self._queries(size) * of_window)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, windows, what is added to scores, and what comes out.

        Of what is added there is a number per query, head and key: the largest part by far. Where keys and
        values have other channels torch forms the scores as well.
        """
        queries = size[0] * self._queries(size)
        blocks = queries // (self.block_size // self.stride) ** 2
        windows = blocks * self.window**2 * (self.key_dim + self.out_dim)
        # once, or as often as torch's plain path does
        copies = 1 if self.key_dim == self.out_dim else 3
        of_scores = self.num_heads * (self.window**2 * copies + 2 * self.window)
        return windows + queries * (self.key_dim + self.out_dim + of_scores)

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """A block sees itself and its halo."""
        b, h = self.block_size, self.halo_size
        return (Reach(b, -h, b + h - 1, b // self.stride),) * 2

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        told = ("num_heads", "block_size", "halo_size", "stride", "border", "tables", "scale_embeddings")
        return f"{self.dim}, " + ", ".join(f"{name}={getattr(self, name)}" for name in told)

    def _tiles(self, size: Sequence[int]) -> tuple[int, int]:
        """Blocks of a map (B, H, W, C), per axis."""
        b = self.block_size
        return (size[1] + b - 1) // b, (size[2] + b - 1) // b

    def _queries(self, size: Sequence[int]) -> int:
        """Queries of one map, in whole blocks."""
        return math.prod(self._tiles(size)) * (self.block_size // self.stride) ** 2

    def _blocks(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries (B, down, across, h, queries, d), keys, values, and what is added to their scores."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        b, halo, s, window = self.block_size, self.halo_size, self.stride, self.window
        (down, across), kept = self._tiles(x.shape), b // s
        query = apply_linear(self.q, every_nth(x, s))
        rest = (0, 0, 0, across * kept - query.shape[2], 0, down * kept - query.shape[1])
        query = F.pad(query, rest).unflatten(-1, (self.num_heads, -1))
        query = query.unflatten(2, (across, kept)).unflatten(1, (down, kept)).permute(0, 1, 3, 5, 2, 4, 6)
        # padded once projected: what is outside has no bias
        margins = (0, 0, halo, across * b - x.shape[2] + halo, halo, down * b - x.shape[1] + halo)
        pairs = F.pad(apply_linear(self.kv, x), margins).unflatten(-1, (self.num_heads, -1))
        # B, down, across, h, window, window, channels
        pairs = pairs.unfold(1, window, b).unfold(2, window, b).permute(0, 1, 2, 3, 5, 6, 4).flatten(4, 5)
        key, value = pairs.split([query.shape[-1], self.out_dim // self.num_heads], -1)
        return query.flatten(4, 5), key, value, self._added(query, x)

    def _added(self, query: Tensor, x: Tensor) -> Tensor:
        """What is added to scores: queries (B, down, across, h, rows, columns, d) -> (..., queries, keys).

        Products with the embeddings, and -inf for keys that are masked.
        """
        step, first = self.stride, self.block_size - 1
        if self.tables == "window":
            step, first = 1, self.window - 1
        place = torch.arange(query.shape[4], device=query.device)
        row = torch.arange(self.window, device=query.device) - step * place[:, None] + first
        down = torch.einsum("...yxd,ykd->...yxk", query, self.row_embedding[row])
        across = torch.einsum("...yxd,xkd->...yxk", query, self.column_embedding[row])
        if self.scale_embeddings:
            down, across = (t * query.shape[-1] ** -0.5 for t in (down, across))
        if self.border == "mask":
            rows, columns = self._outside(x)
            down = down.masked_fill(rows[:, None, None, None, None], float("-inf"))
            across = across.masked_fill(columns[:, None, None, None], float("-inf"))
        # dense in this order, as the sum is then: a number per query, head and key is not to be copied
        down, across = down.contiguous(), across.contiguous()
        return (down[..., :, None] + across[..., None, :]).flatten(-2).flatten(-3, -2)

    def _places(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Along each axis where the keys of each block lie; some are outside: (blocks, window)."""
        starts = (torch.arange(tiles, device=x.device) * self.block_size for tiles in self._tiles(x.shape))
        taps = torch.arange(self.window, device=x.device) - self.halo_size
        down, across = (start[:, None] + taps for start in starts)
        return down, across

    def _outside(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Along each axis which keys of each block lie outside the map: (blocks, window)."""
        down, across = self._places(x)
        return (down < 0) | (down >= x.shape[1]), (across < 0) | (across >= x.shape[2])

    def _rows(self, x: Tensor) -> tuple[PositionRows, Tensor]:
        """The rows, and which of their keys lie in the map: (queries, keys)."""
        shares = self.attention_map(x).mean(3).flatten(3).flatten(1, 2)
        height, width = x.shape[1:3]
        down, across = self._places(x)
        sources = down.clamp(0, height - 1)[:, None, :, None] * width + across.clamp(0, width - 1)[:, None]
        rows, columns = self._outside(x)
        outside = rows[:, None, :, None] | columns[:, None]
        kept = self.block_size // self.stride
        of_query = [
            torch.arange(-(-n // self.stride), device=x.device) // kept for n in (height, width)
        ]  # the block that each query lies in
        sources, outside = (
            t.flatten(2)[of_query[0]][:, of_query[1]].flatten(0, 1) for t in (sources, outside)
        )
        return PositionRows(shares.masked_fill(outside, 0), sources), ~outside

    def _unblock(self, blocks: Tensor, size: Sequence[int]) -> Tensor:
        """(B, down, across, h, queries, m) -> (B, H', W', h * m), without what lies outside the map."""
        kept = self.block_size // self.stride
        tiled = blocks.unflatten(4, (kept, kept)).permute(0, 1, 4, 2, 5, 3, 6)
        whole = tiled.flatten(5, 6).flatten(3, 4).flatten(1, 2)
        # one form of "rounded up" for all maps: exporters have to see that sizes of two paths are equal
        height, width = ((n + self.stride - 1) // self.stride for n in size[1:3])
        return part_of(part_of(whole, 1, 0, height), 2, 0, width)


ROW = MixerRow(
    HaloAttention2d,
    About(
        title="Scaling Local Self-Attention for Parameter Efficient Visual Backbones",
        authors="Vaswani, Ramachandran, Srinivas et al.",
        venue="CVPR 2021",
        arxiv="2103.12731",
        read="the abstract; timm 1.0.31's HaloAttn (Apache-2.0); no code of the authors is published",
        differs="maps need not be multiples of the block; padding can be masked; embeddings only of offsets "
        "that occur, and by positions of the map in a strided layer, where timm's option is not asked for; "
        "strides that do not divide the block, which timm answers by pooling, are refused",
        status="exact",
    ),
    Example((5, 7), {"num_heads": 2, "block_size": 4, "halo_size": 1, "border": "mask"}),
    Traits(2, heads=True, strided=True),
)
