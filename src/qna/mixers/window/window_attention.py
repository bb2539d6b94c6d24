"""Self-attention inside windows that tile the map, with relative position bias, for any map size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.checks import per_axis
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.open_size import is_open
from qna.parts.reach import Reach
from qna.parts.rows import PositionRows


class WindowAttention2d(nn.Module):
    """Multi-head self-attention of each window's positions among themselves (Swin's, Liu et al., ICCV 2021).

    Windows do not overlap and are not shifted: the local self-attention of QnA-ViT's later stages. A map
    that the window does not divide is padded at its end, and padded positions get no weight; a window
    larger than the map attends the whole map. With n positions, C channels and windows of K positions it
    costs 4 n C^2 + 2 n K C multiply-adds.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        window_size: height and width of a window; an integer for both.
        bias: whether queries, keys, values and output have a bias.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, or a size is not positive.
    """

    def __init__(self, dim: int, *, num_heads: int, window_size: int | Sequence[int], bias: bool = False):
        super().__init__()
        checks.head_dim(type(self).__name__, dim, num_heads)
        self.dim = self.out_dim = dim
        self.num_heads = num_heads
        self.window_size = per_axis("window_size", window_size, 2, minimum=1)
        rows, columns = self.window_size
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        # bias of every offset (query - key) that two positions of a window can have
        self.position_table = nn.Parameter(torch.zeros(2 * rows - 1, 2 * columns - 1, num_heads))
        self.out = nn.Linear(dim, dim, bias=bias)
        init_linear_(self.qkv)
        init_linear_(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        query, key, value, mask, grid = self._windows(x)
        # torch's fused attention has no forward-mode derivative; on a CPU it gives no gradient of a mask, and
        # what it does then instead guards against positions without keys, of which there are none
        wants_mask = mask.requires_grad and mask.device.type == "cpu"
        if (fwAD._current_level >= 0 or wants_mask) and not torch.compiler.is_compiling():
            logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
            attended = (logits + mask).softmax(-1) @ value
        else:
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            if torch.compiler.is_compiling():
                # the fused kernel's order in memory is not that of its decomposition, which exporters view
                attended = attended.clone(memory_format=torch.contiguous_format)
        inside = self._untile(attended, grid)[:, : x.shape[1], : x.shape[2]]
        if any(map(is_open, x.shape)):
            # whether this is a copy depends on the sizes, which a recorder would keep to
            inside = inside.clone(memory_format=torch.contiguous_format)
        return apply_linear(self.out, inside)

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every position over its own window.

        Returns:
            (B, H, W, h, *window), at least fp32; 0 outside the map. Where the map is smaller than the window,
            `window` is the map.
        """
        query, key, _, mask, grid = self._windows(x)
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        shares = (logits.to(mask.dtype) + mask).softmax(-1)
        untiled = self._untile(shares, grid).unflatten(-1, (self.num_heads, *self._window(x.shape)))
        return untiled[:, : x.shape[1], : x.shape[2]]

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all positions of its window: (B, H, W), 1 where attention is even."""
        shares = self.attention_map(x).mean(3)
        (batch, height, width), (rows, columns) = shares.shape[:3], shares.shape[3:]
        after = (-height % rows, -width % columns)
        tiled = F.pad(shares, (0, 0, 0, 0, 0, after[1], 0, after[0]))
        tiled = tiled.view(batch, -(-height // rows), rows, -(-width // columns), columns, rows, columns)
        # sum over the positions that attend; B, down, rows, across, columns
        received = tiled.sum((2, 4)).transpose(2, 3)
        return received.flatten(3, 4).flatten(1, 2)[:, :height, :width]

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each position looks in its window: the softmax, mean over heads."""
        shares = self.attention_map(x).mean(3).flatten(3).flatten(1, 2)  # B, H * W, window
        height, width = x.shape[1:3]
        window = self._window(x.shape)
        # of every position and every place in a window, along one axis: where that place is
        down, across = (
            (
                (torch.arange(n, device=x.device) // k * k)[:, None] + torch.arange(k, device=x.device)
            ).clamp_max(n - 1)
            for n, k in zip((height, width), window, strict=True)
        )
        sources = down[:, None, :, None] * width + across[None, :, None, :]
        return PositionRows(shares, sources.flatten(2).flatten(0, 1))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the paper's training exempts from decay: the position table."""
        return {"position_table"}

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim), padding to whole windows included."""
        batch, height, width, C = size
        rows, columns = self._window(size)
        return batch * (4 * height * width * C * C + 2 * self._padded(size) * rows * columns * C)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys and values twice, while they are brought into windows."""
        return 6 * size[0] * self._padded(size) * self.dim

    def reach(self, size: Sequence[int]) -> tuple[Reach, ...]:
        """A window sees itself; windows begin at the map's start."""
        return tuple(map(Reach.of_blocks, self.window_size))

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, num_heads={self.num_heads}, window_size={self.window_size}"

    def _window(self, size: Sequence[int]) -> tuple[int, int]:
        """The window, or the map (B, H, W, C) where it is smaller: the offsets inside are the same.

        A graph that is recorded for maps of any size takes the whole window, padded and masked.
        """
        rows, columns = self.window_size
        return rows if is_open(size[1]) else min(rows, size[1]), (
            columns if is_open(size[2]) else min(columns, size[2])
        )

    def _padded(self, size: Sequence[int]) -> int:
        """Positions of one map (B, H, W, C) that is padded to whole windows."""
        rows, columns = self._window(size)
        return -(-size[1] // rows) * rows * (-(-size[2] // columns) * columns)

    def _windows(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[int, int, int, int]]:
        """Queries, keys and values of each window, the additive mask, and the grid of windows.

        Without padding the windows lie in the batch, (B * windows, h, n, d), and one mask (1, h, n, n)
        serves all. With padding they lie among the heads, (B, windows * h, n, d): each window has its own
        mask, and the images of the batch share them. The grid is (rows of windows, columns of windows,
        *window).
        """
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        height, width = x.shape[1:3]
        rows, columns = self._window(x.shape)
        down, across = (height + rows - 1) // rows, (width + columns - 1) // columns
        after = (down * rows - height, across * columns - width)
        mask = self._bias(rows, columns)
        tiled = F.pad(apply_linear(self.qkv, x), (0, 0, 0, after[1], 0, after[0]))
        # exporters may leave a projected map in another order in memory, which a view would refuse
        tiled = tiled.reshape(
            x.shape[0], down, rows, across, columns, 3, self.num_heads, self.dim // self.num_heads
        )
        # 3, B, windows, h, n, d
        tiled = tiled.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(2, 3)
        if any(is_open(n) or n for n in after):
            mask = (mask + self._outside(x, after, mask.dtype)).flatten(0, 1)
            tiled = tiled.flatten(2, 3)
        else:
            tiled = tiled.flatten(1, 2)
        query, key, value = tiled.unbind(0)
        # four axes: with three, torch takes its slow path on CPU, which forms the scores
        return query, key, value, mask.to(query.dtype).unsqueeze(0), (down, across, rows, columns)

    def _bias(self, rows: int, columns: int) -> Tensor:
        """Position bias (h, n, n) of a window of `rows` by `columns`."""
        device = self.position_table.device
        r = torch.arange(rows, device=device)
        c = torch.arange(columns, device=device)
        down = (r[:, None] - r + self.window_size[0] - 1)[:, None, :, None]
        across = (c[:, None] - c + self.window_size[1] - 1)[None, :, None, :]
        # rows, columns, rows, columns, h
        return self.position_table[down, across].flatten(2, 3).flatten(0, 1).movedim(-1, 0)

    def _outside(self, x: Tensor, after: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """-inf at the padded keys of each window: (windows, 1, 1, n)."""
        window = self._window(x.shape)
        # by comparison, not by padding: a recorder would keep to sizes at which tiles of a map are no view
        down, across = (
            (torch.arange(n + more, device=x.device) >= n).unflatten(0, (-1, k))
            for n, more, k in zip(x.shape[1:3], after, window, strict=True)
        )
        outside = (down[:, None, :, None] | across[:, None, :]).reshape(-1, 1, 1, window[0] * window[1])
        return x.new_zeros((), dtype=dtype).masked_fill(outside, float("-inf"))

    def _untile(self, windows: Tensor, grid: tuple[int, int, int, int]) -> Tensor:
        """(..., n, m) per window and head, in either layout of `_windows` -> (B, rows, columns, h * m)."""
        down, across, rows, columns = grid
        tiled = windows.reshape(-1, down, across, self.num_heads, rows, columns, windows.shape[-1])
        # B, down, rows, across, columns, h, m
        tiled = tiled.permute(0, 1, 4, 2, 5, 3, 6)
        return tiled.flatten(5, 6).flatten(3, 4).flatten(1, 2)


ROW = MixerRow(
    WindowAttention2d,
    About(
        title="Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
        authors="Liu, Lin, Cao et al.",
        venue="ICCV 2021",
        arxiv="2103.14030",
        read="the paper",
        differs="windows are not shifted, so it is the paper's W-MSA alone; a map that they do not divide "
        "is padded and padded positions are masked; no bias unless asked for",
        status="formula",
    ),
    Example((5, 7), {"num_heads": 2, "window_size": 3}),
    Traits(2, heads=True),
)
