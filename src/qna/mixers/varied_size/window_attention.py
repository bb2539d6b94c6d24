"""Attention of each window to a window that is moved and scaled, head by head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.checks import per_axis
from qna._core.errors import check_choice
from qna.mixers.row import Example, MixerRow, Traits
from qna.mixers.varied_size.sampling import WindowGrid, read_between, shares_of_positions
from qna.parts.attend import attend
from qna.parts.head_gate import GatedHeads
from qna.parts.image_view import as_image
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.offset_bias import offset_biases
from qna.parts.open_size import is_open, part_of
from qna.parts.rows import PositionRows

PADDINGS = ("end", "centred")


class SlotPlaces(NamedTuple):
    """Where the slots of each window read keys and values, in positions: both (B, heads, windows, slots)."""

    down: Tensor
    across: Tensor


class VariedSizeWindowAttention2d(GatedHeads, nn.Module):
    """Varied-size window attention (Zhang et al., ECCV 2022) of maps of any height and width.

    The map is cut into windows of w x w positions. Of each window's mean m, taken of the input with zeros
    where the window leaves the map, two linear maps make a scale s and an offset o per head and axis::

        s, o = Linear(LeakyReLU(m))

    Queries stay where they are. Keys and values are read bilinearly at w x w places of each head, zero
    outside the map; along an axis of n positions, t = -(w - 1) / 2 .. (w - 1) / 2 and windows of w::

        place(t) = middle + t (1 + s) + o (n' - 1) / (2 max(1, floor(n / w)))      n' = ceil(n / w) w

    All queries of a window attend all of its places, with Swin's table of a bias for each offset of *slots*,
    whatever was read there. The same cost for any s: n positions of C channels with windows of K cost
    ``4 n C^2 + 2 n' K C`` multiply-adds, and 4 h C for each window; reading between positions adds 8 n' C.

    With s = o = 0, at first so with `zero_init`, this is attention inside windows, in which positions outside
    the map are slots whose key and value are zero.

    Args:
        dim: channels of the input.
        num_heads: heads; divides `dim` and `out_dim`.
        window_size: height and width of a window; an integer for both.
        out_dim: channels of queries, keys, values and output; None for `dim`.
        bias: whether queries, keys and values have a bias.
        padding: where positions lie that the last windows lack: "end", behind the map, as in the authors'
            classifiers, or "centred", half of them before it, as in their detectors.
        zero_init: begin with plain windows. The authors' code has this and does not call it.

    Raises:
        InvalidInput: `num_heads` does not divide, a size is not positive, or `padding` is unknown.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int | Sequence[int],
        out_dim: int | None = None,
        bias: bool = True,
        padding: str = "end",
        zero_init: bool = False,
    ):
        super().__init__()
        self.padding = check_choice("padding", padding, PADDINGS)
        name = type(self).__name__
        checks.head_dim(name, dim, num_heads)
        self.dim = dim
        self.out_dim = dim if out_dim is None else out_dim
        checks.head_dim(name, self.out_dim, num_heads, of="out_dim")
        self.num_heads = num_heads
        self.window_size = per_axis(f"{name}: window_size", window_size, 2, minimum=1)
        rows, columns = self.window_size
        self.qkv = nn.Linear(dim, 3 * self.out_dim, bias=bias)
        # head by head, of each across before down; they begin as torch makes them, as the authors' do
        self.scales = nn.Linear(dim, 2 * num_heads)
        self.offsets = nn.Linear(dim, 2 * num_heads)
        # bias of every offset (query - key) that two slots of a window can have
        self.position_table = nn.Parameter(torch.zeros(2 * rows - 1, 2 * columns - 1, num_heads))
        self.out = nn.Linear(self.out_dim, self.out_dim)
        init_linear_(self.qkv)
        init_linear_(self.out)
        nn.init.normal_(self.position_table.data, std=0.02)
        if zero_init:
            for linear in (self.scales, self.offsets):
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, out_dim)."""
        grids = self._grids(x)
        packed = self._packed(x)
        places = self._places(x, grids)
        key, value = self._read(packed, places).chunk(2, -1)
        attended = attend(self._queries(packed, grids), key, value, self._bias(packed.dtype))
        if torch.compiler.is_compiling():
            # the fused kernel's order in memory is not that of its decomposition, which exporters view
            attended = attended.clone(memory_format=torch.contiguous_format)
        return apply_linear(self.out, self._gated(x, self._untile(attended, grids)))

    def attention_map(self, x: Tensor) -> Tensor:
        """The softmax of every position over the slots of its window.

        Returns:
            (B, H, W, h, *window_size), at least fp32. What a slot reads, `places` tells.
        """
        grids = self._grids(x)
        return self._untile(self._shares(x, grids), grids).unflatten(-1, (self.num_heads, *self.window_size))

    def places(self, x: Tensor) -> Tensor:
        """Where every window's slots read the map.

        Returns:
            (B, h, windows down, windows across, *window_size, 2), at least fp32: row and column, in positions
            from the map's start.
        """
        grids = self._grids(x)
        both = torch.stack(self._places(x, grids), -1)
        return both.unflatten(3, self.window_size).unflatten(2, [grid.tiles for grid in grids])

    def attention_rows(self, x: Tensor) -> PositionRows:
        """Where each position looks, mean over heads: at all of the map, in most places with a share of 0.

        What is read outside the map is left out. Takes h numbers for each slot of each window and each
        position of the map.
        """
        grids = self._grids(x)
        height, width = x.shape[1:3]
        down, across = self._places(x, grids)
        shares = self._shares(x, grids).unflatten(0, (x.shape[0], self._windows(x.shape))).movedim(2, 1)
        looked = shares @ shares_of_positions(down.to(shares), across.to(shares), height, width)
        rows = self._untile(looked.mean(1, keepdim=True).movedim(1, 2).flatten(0, 1), grids)
        sources = torch.arange(height * width, device=x.device).expand(height * width, -1)
        return PositionRows(rows.flatten(1, 2), sources)

    def attention_received(self, x: Tensor) -> Tensor:
        """What each position gets from all positions: (B, H, W), 1 on average where nothing is outside."""
        rows = self.attention_rows(x)
        return rows.shares.sum(1).view(x.shape[:3])

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that Swin's training exempts from decay: the position table."""
        return {"position_table"}

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim): products, without reading between positions."""
        batch, height, width, _ = size
        windows, slots = self._windows(size), math.prod(self.window_size)
        projected = height * width * (3 * self.dim + self.out_dim) * self.out_dim
        attention = 2 * windows * slots**2 * self.out_dim
        return batch * (projected + attention + windows * self.dim * 4 * self.num_heads)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: queries, keys and values, and in windows queries and twice what is read.

        And rows and columns of the places.
        """
        batch, height, width, _ = size
        slots = self._windows(size) * math.prod(self.window_size)
        return batch * (3 * height * width * self.out_dim + slots * (5 * self.out_dim + 2 * self.num_heads))

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return (
            f"{self.dim}, num_heads={self.num_heads}, window_size={self.window_size}, padding={self.padding}"
        )

    def _windows(self, size: Sequence[int]) -> int:
        return math.prod(-(-n // k) for n, k in zip(size[1:3], self.window_size, strict=True))

    def _grids(self, x: Tensor) -> tuple[WindowGrid, WindowGrid]:
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        down, across = (
            WindowGrid.over(n, k, centred=self.padding == "centred")
            for n, k in zip(x.shape[1:3], self.window_size, strict=True)
        )
        return down, across

    def _packed(self, x: Tensor) -> Tensor:
        """Queries, keys and values: (B, H, W, 3, h, d)."""
        return apply_linear(self.qkv, x).unflatten(-1, (3, self.num_heads, -1))

    def _places(self, x: Tensor, grids: tuple[WindowGrid, WindowGrid]) -> SlotPlaces:
        """Where the slots of each window read, at least fp32."""
        means = F.avg_pool2d(as_image(_filled(x, grids)), self.window_size).movedim(1, -1)
        means = F.leaky_relu(means)
        dtype = torch.promote_types(x.dtype, torch.float32)
        # B, windows down, windows across, 2 h -> 2, B, h, windows down, windows across
        scale, offset = (
            apply_linear(linear, means).to(dtype).unflatten(-1, (-1, 2)).permute(4, 0, 3, 1, 2)
            for linear in (self.scales, self.offsets)
        )
        down = grids[0].places(scale[1], offset[1], 0)
        across = grids[1].places(scale[0], offset[0], 1)
        rows, columns = self.window_size
        return SlotPlaces(
            down[..., None].expand(-1, -1, -1, -1, -1, columns).flatten(4).flatten(2, 3),
            across[..., None, :].expand(-1, -1, -1, -1, rows, -1).flatten(4).flatten(2, 3),
        )

    def _read(self, packed: Tensor, places: SlotPlaces) -> Tensor:
        """Keys and values at the places: (B * windows, h, slots, 2 d), keys first."""
        # neither is named: the maps are not to live on while what was read is brought into windows
        read = read_between(
            packed[:, :, :, 1:].permute(0, 4, 3, 5, 1, 2).flatten(2, 3).flatten(0, 1).to(places.down.dtype),
            *(t.flatten(0, 1) for t in places),
        )
        # places have more digits than maps of 16 bits; autocast is not asked
        read = read.to(packed.dtype).unflatten(0, (packed.shape[0], self.num_heads)).permute(0, 3, 1, 4, 2)
        # of one image nothing else would bring channels together, as the fused attention wants them
        return read.contiguous().flatten(0, 1)

    def _queries(self, packed: Tensor, grids: tuple[WindowGrid, WindowGrid]) -> Tensor:
        """(B * windows, h, slots, d)."""
        down, across = grids
        query = _filled(packed[:, :, :, 0].flatten(3), grids)
        query = query.reshape(
            -1, down.tiles, down.window, across.tiles, across.window, self.num_heads, packed.shape[-1]
        )
        query = query.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(0, 2)
        # the trap: the authors' scale is that of the input's channels, also where there are others behind
        return query if self.dim == self.out_dim else query * (self.out_dim / self.dim) ** 0.5

    def _bias(self, dtype: torch.dtype) -> Tensor:
        """(1, h, slots, slots)."""
        return offset_biases(self.position_table, *self.window_size).to(dtype).unsqueeze(0)

    def _shares(self, x: Tensor, grids: tuple[WindowGrid, WindowGrid]) -> Tensor:
        """The softmax of each window: (B * windows, h, slots, slots), at least fp32."""
        packed = self._packed(x)
        key = self._read(packed, self._places(x, grids)).chunk(2, -1)[0]
        query = self._queries(packed, grids)
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        dtype = torch.promote_types(x.dtype, torch.float32)
        return (logits.to(dtype) + self._bias(dtype)).softmax(-1)

    def _untile(self, windows: Tensor, grids: tuple[WindowGrid, WindowGrid]) -> Tensor:
        """(B * windows, h', slots, m) -> (B, H, W, h' * m)."""
        down, across = grids
        tiled = windows.reshape(
            -1, down.tiles, across.tiles, windows.shape[1], down.window, across.window, windows.shape[-1]
        )
        padded = tiled.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)
        inside = part_of(part_of(padded, 1, down.before, down.size), 2, across.before, across.size)
        if any(map(is_open, padded.shape)):
            # whether this is a copy depends on the sizes, which a recorder would keep to
            inside = inside.clone(memory_format=torch.contiguous_format)
        return inside


def _filled(x: Tensor, grids: tuple[WindowGrid, WindowGrid]) -> Tensor:
    """A map (B, H, W, C) with zeros where its windows leave it."""
    down, across = grids
    margins = (across.before, across.after, down.before, down.after)
    if any(map(is_open, margins)) or any(margins):
        return F.pad(x, (0, 0, *margins))
    return x


ROW = MixerRow(
    VariedSizeWindowAttention2d,
    About(
        title="VSA: Learning Varied-Size Window Attention in Vision Transformers",
        authors="Zhang, Xu, Zhang et al.",
        venue="ECCV 2022",
        arxiv="2204.08446",
        read="the authors' code, ViTAE-Transformer/ViTAE-VSA at 75dc986 (no licence: nothing is copied)",
        differs="places are made at each call, for maps of any size, where the authors' classifiers are "
        "built for one; offsets are divided axis by axis, which the authors' detectors swap; of maps "
        "smaller than a window by 1, where theirs divide by 0",
        status="exact",
    ),
    Example((5, 7), {"num_heads": 2, "window_size": 3}),
    Traits(2, heads=True),
)
