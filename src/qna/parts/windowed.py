"""What attention inside windows shares, wherever its queries come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.checks import per_axis
from qna._core.errors import check_choice
from qna.parts.attend import attend
from qna.parts.head_gate import GatedHeads
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.offset_bias import offset_biases
from qna.parts.open_size import is_open, part_of
from qna.parts.rows import PositionRows

BORDERS = ("mask", "zero")


class Tiling(NamedTuple):
    """How windows tile a map along one axis.

    Attributes:
        window: positions of a window.
        tiles: number of windows.
        before: positions that the first window hangs over the map's start.
        after: positions that the last one hangs over its end.
        seen: positions from the map's start on that are keys; those beyond the map are zeros.
    """

    window: int
    tiles: int
    before: int
    after: int
    seen: int

    @property
    def hides(self) -> bool:
        """Whether some position of a window is no key."""
        return any(map(is_open, self)) or self.before > 0 or self.tiles * self.window > self.seen

    def hidden(self, device: torch.device) -> Tensor:
        """Which positions of each window are no keys: (tiles, window)."""
        # by comparison, not by padding: a recorder would keep to sizes at which tiles of a map are no view
        place = torch.arange(self.tiles * self.window, device=device) - self.before
        return ((place < 0) | (place >= self.seen)).unflatten(0, (-1, self.window))

    def places(self, size: int, device: torch.device) -> Tensor:
        """For each of `size` positions, where those of its window lie; some are outside: (size, window)."""
        start = (torch.arange(size, device=device) + self.before) // self.window * self.window - self.before
        return start[:, None] + torch.arange(self.window, device=device)


class Windows(NamedTuple):
    """What the windows of a map attend with.

    Where all positions of a window are keys the windows lie in the batch, (B * windows, h, n, d), and one
    mask (1, h, n, n) serves all. Elsewhere they lie among the heads, (B, windows * h, n, d): each window has
    its own mask, and the images of the batch share them.

    Attributes:
        query: of each window and head.
        key: the same.
        value: the same.
        mask: added to the scores, where anything is.
        tilings: how the windows lie, per axis.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    tilings: tuple[Tiling, Tiling]


class WindowedAttention(GatedHeads, nn.Module):
    """Attention of windows that tile a map to themselves: the floor of mixers that differ in their queries.

    Args:
        dim: channels of input and output.
        num_heads: heads; divides `dim`.
        window_size: height and width of a window; an integer for both.
        projection: name of the linear map of the input, and how many maps of `dim` channels it makes.
        bias: whether that map and the output's have a bias.
        border: "mask" or "zero": what the padding to whole windows is.
        position_bias: whether scores have a bias for each offset between two positions.

    Raises:
        InvalidInput: `num_heads` does not divide `dim`, a size is not positive, or `border` is unknown.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int | Sequence[int],
        projection: tuple[str, int],
        bias: bool,
        border: str,
        position_bias: bool = True,
    ):
        super().__init__()
        self.border = check_choice("border", border, BORDERS)
        checks.head_dim(type(self).__name__, dim, num_heads)
        self.dim = self.out_dim = dim
        self.num_heads = num_heads
        self.window_size = per_axis("window_size", window_size, 2, minimum=1)
        rows, columns = self.window_size
        name, self._maps = projection
        packed = nn.Linear(dim, self._maps * dim, bias=bias)
        self.add_module(name, packed)
        # bias of every offset (query - key) that two positions of a window can have
        table = torch.zeros(2 * rows - 1, 2 * columns - 1, num_heads) if position_bias else None
        self.position_table = None if table is None else nn.Parameter(table)
        self.out = nn.Linear(dim, dim, bias=bias)
        init_linear_(packed)
        init_linear_(self.out)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the paper's training exempts from decay: the position table."""
        return set() if self.position_table is None else {"position_table"}

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, num_heads={self.num_heads}, window_size={self.window_size}"

    def _attended(self, windows: Windows, x: Tensor) -> Tensor:
        """What the windows of a map `x` attend to, through the last linear map: (B, H, W, dim)."""
        query, key, value, mask, tilings = windows
        attended = attend(query, key, value, mask)
        if torch.compiler.is_compiling():
            # the fused kernel's order in memory is not that of its decomposition, which exporters view
            attended = attended.clone(memory_format=torch.contiguous_format)
        return apply_linear(self.out, self._gated(x, self._untile(attended, tilings, x.shape)))

    def _shares(self, windows: Windows, size: Sequence[int]) -> Tensor:
        """The softmax of every position over its window: (B, H, W, h, *window)."""
        query, key, _, mask, tilings = windows
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        shares = (logits if mask is None else logits + mask).softmax(-1)
        window = [tiling.window for tiling in tilings]
        return self._untile(shares, tilings, size).unflatten(-1, (self.num_heads, *window))

    def _received(self, rows: PositionRows, size: Sequence[int]) -> Tensor:
        """What each position of a map of `size` gets by `rows`: (B, H, W)."""
        received = rows.pull(torch.ones_like(rows.shares[:, :, 0]), size[1] * size[2])
        return received.view(*size[:3])

    def _rows(self, shares: Tensor) -> PositionRows:
        """Where each position looks, of `shares` (B, H, W, h, *window): mean over heads, none outside."""
        shares = shares.mean(3)
        down, across = (
            tiling.places(n, shares.device)
            for tiling, n in zip(self._tilings(shares.shape), shares.shape[1:3], strict=True)
        )
        height, width = shares.shape[1:3]
        inside = ((down >= 0) & (down < height))[:, None, :, None] & ((across >= 0) & (across < width))[
            :, None
        ]
        sources = down.clamp(0, height - 1)[:, None, :, None] * width + across.clamp(0, width - 1)[:, None]
        shares = torch.where(inside, shares, 0).flatten(3).flatten(1, 2)  # B, H * W, window
        return PositionRows(shares, sources.flatten(2).flatten(0, 1))

    def _projected(self, size: Sequence[int]) -> int:
        """Multiply-adds of the linear maps of one map of `size`, those of padding included."""
        positions = size[1] * size[2]
        first = self._padded(size) if self.border == "zero" else positions
        return (self._maps * first + positions) * size[3] ** 2

    def _products(self, size: Sequence[int]) -> int:
        """Multiply-adds of scores and values of one map of `size`."""
        keys = math.prod(tiling.window for tiling in self._tilings(size))
        return 2 * self._padded(size) * keys * size[3]

    def _mask_elements(self, size: Sequence[int]) -> int:
        """Elements of the masks, which images share, where some position of a window is no key."""
        tilings = self._tilings(size)
        if not any(tiling.hides for tiling in tilings):
            return 0
        return self.num_heads * math.prod(t.tiles * t.window**2 for t in tilings)

    def _shift(self, size: int, axis: int) -> int:
        """Where the second window of an axis of `size` positions begins; 0 for after a whole one."""
        return 0

    def _tilings(self, size: Sequence[int]) -> tuple[Tiling, Tiling]:
        """The windows of a map (B, H, W, C), per axis.

        A masked window that is larger than the map becomes the map: the offsets inside are the same. A graph
        that is recorded for maps of any size takes the whole window, padded and masked.
        """
        made = []
        for axis, k in enumerate(self.window_size):
            n, shift = size[axis + 1], self._shift(size[axis + 1], axis)
            window = min(k, n) if self.border == "mask" and not is_open(n) else k
            before = (window - shift) % window
            tiles = (n + before + window - 1) // window
            seen = n if self.border == "mask" else (n + window - 1) // window * window
            made.append(Tiling(window, tiles, before, tiles * window - before - n, seen))
        return made[0], made[1]

    def _padded(self, size: Sequence[int]) -> int:
        """Positions of one map (B, H, W, C) that is padded to whole windows."""
        return math.prod(tiling.tiles * tiling.window for tiling in self._tilings(size))

    def _packed(self, projection: nn.Linear, x: Tensor, tilings: tuple[Tiling, Tiling]) -> Tensor:
        """What `projection` makes of `x`, in windows as `Windows` says: (maps, ..., n, d)."""
        if self.border == "zero":
            x = self._filled(x, tilings)
        packed = apply_linear(projection, x)
        if self.border == "mask":
            packed = self._filled(packed, tilings)
        down, across = tilings
        # exporters may leave a projected map in another order in memory, which a view would refuse
        tiled = packed.reshape(
            x.shape[0],
            down.tiles,
            down.window,
            across.tiles,
            across.window,
            self._maps,
            self.num_heads,
            self.dim // self.num_heads,
        )
        # maps, B, windows, h, n, d
        tiled = tiled.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(2, 3)
        return tiled.flatten(2, 3) if down.hides or across.hides else tiled.flatten(1, 2)

    def _mask(self, tilings: tuple[Tiling, Tiling], like: Tensor) -> Tensor | None:
        """Position bias, and -inf where a position is no key: (1, h, n, n) or (1, windows * h, n, n)."""
        down, across = tilings
        mask = self._bias(down.window, across.window)
        if down.hides or across.hides:
            rows, columns = down.hidden(like.device), across.hidden(like.device)
            keys = down.window * across.window
            hidden = (rows[:, None, :, None] | columns[:, None, :]).reshape(-1, 1, 1, keys)
            closed = (like if mask is None else mask).new_zeros(()).masked_fill(hidden, float("-inf"))
            mask = closed.expand(-1, self.num_heads, -1, -1) if mask is None else mask + closed
            mask = mask.flatten(0, 1)
        # four axes: with three, torch takes its slow path on CPU, which forms the scores
        return None if mask is None else mask.to(like.dtype).unsqueeze(0)

    @staticmethod
    def _filled(x: Tensor, tilings: tuple[Tiling, Tiling]) -> Tensor:
        """A map with what its windows have outside of it; any values where no position there is a key."""
        down, across = tilings
        if is_open(down.before) or is_open(across.before):
            # a recorder cannot tell that what is filled has as many positions as it must have
            rows, columns = (
                (torch.arange(t.tiles * t.window, device=x.device) - t.before).clamp(0, n - 1)
                for t, n in zip(tilings, x.shape[1:3], strict=True)
            )
            return x.index_select(1, rows).index_select(2, columns)
        return F.pad(x, (0, 0, across.before, across.after, down.before, down.after))

    def _bias(self, rows: int, columns: int) -> Tensor | None:
        """Position bias (h, n, n) of a window of `rows` by `columns`, where there is one."""
        table = self.position_table
        return None if table is None else offset_biases(table, rows, columns)

    def _untile(self, windows: Tensor, tilings: tuple[Tiling, Tiling], size: Sequence[int]) -> Tensor:
        """(..., n, m) per window and head, in either layout of `_windows` -> (B, H, W, h * m)."""
        down, across = tilings
        tiled = windows.reshape(
            -1, down.tiles, across.tiles, self.num_heads, down.window, across.window, windows.shape[-1]
        )
        # B, down, rows, across, columns, h, m
        tiled = tiled.permute(0, 1, 4, 2, 5, 3, 6)
        padded = tiled.flatten(5, 6).flatten(3, 4).flatten(1, 2)
        return part_of(part_of(padded, 1, down.before, size[1]), 2, across.before, size[2])
