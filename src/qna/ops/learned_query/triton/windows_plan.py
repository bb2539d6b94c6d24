"""The launches of the kernels that take windows one by one, or a few of a row: any call of the backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from qna.ops._shared.triton.arguments import CALLS, ceil, unspecialised
from qna.ops._shared.triton.launch import Launch
from qna.ops._shared.triton.runtime import architecture
from qna.ops._shared.window import Window
from qna.ops.learned_query.layout import dense, heads_fastest, parameter
from qna.ops.learned_query.triton.arguments import Maps
from qna.ops.learned_query.triton.tiles import SHARING, Tile, tile

# most rows and numbers of partial sums for the gradients of bias and weight, whatever the size of the map
PARTIAL_ROWS = 2048
PARTIAL_SUMS = 2**22
FEW_ROWS = 64
# of these sums, how many a program adds up
SUMS = 16
# most taps of a row that the forward kernel unrolls; longer rows are cut into pieces
UNROLLED = 8

# (kernel, architecture, bits, taps, head size) -> tile, as `tiles.tile`
Tiles = Callable[[str, str, int, int, int], Tile]


def forward(
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    out: Tensor,
    lse: Tensor | None,
    window: Window,
    tiles: Tiles = tile,
) -> list[Launch]:
    """The launches that fill `out` and `lse`, the last of them by a tile for whose size `tiles` is asked."""
    layout = heads_fastest(value)
    scores, value = dense(scores, False), dense(value, layout)
    geometry = _Geometry(scores, value, window, layout, (scores, value, out), tiles)
    tables = (parameter(bias), parameter(weight))
    attend = geometry.launch("attend", ())
    piece = attend.constants["BLOCK"][-1]
    taps = math.prod(window.kernel[:-1]) * ceil(window.kernel[-1], piece) * piece
    factors = torch.empty(1 + 2 * taps, *bias.shape[-2:], device=value.device)
    return [
        geometry.tabulate(tables, factors, piece),
        attend._replace(arguments=((scores, value), tables, factors, (out, lse), *attend.arguments)),
    ]


def forward_if_far(
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    out: Tensor,
    lse: Tensor | None,
    window: Window,
    far: Tensor,
) -> Launch:
    """The launch that, if the flag `far` is set, fills `out` and `lse` again, by each window's maximum."""
    layout = heads_fastest(value)
    scores, value = dense(scores, False), dense(value, layout)
    geometry = _Geometry(scores, value, window, layout, (scores, value, out), tile)
    maps = ((scores, value), (parameter(bias), parameter(weight)), (out, lse), far)
    return geometry.launch("attend_far", maps)


def backward(
    grad: Tensor,
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    lse: Tensor,
    grads: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    window: Window,
    far: Tensor | None = None,
    tiles: Tiles = tile,
) -> list[Launch]:
    """The launches that fill the gradients of scores, value, bias and weight, the last two where wanted.

    With `far` they do nothing but if this flag is set.
    """
    layout = heads_fastest(value)
    scores, value, grad = dense(scores, False), dense(value, layout), dense(grad, layout)
    geometry = _Geometry(scores, value, window, layout, (scores, value, grad, *grads[:2]), tiles)
    tables = (parameter(bias), parameter(weight))
    inner = torch.empty_like(lse)
    first = geometry.launch("sum_inside", ((scores, value), *tables, grad, lse, inner, far))
    gather = geometry.launch("gather", ())
    blocks = gather.programs // geometry.parts(gather)
    # what hardly ever runs may take its time, and no memory
    most = max(1, min(PARTIAL_ROWS, PARTIAL_SUMS // bias.numel())) if far is None else FEW_ROWS
    rows = ceil(blocks, ceil(blocks, most))  # programs with runs of as many blocks, none empty
    partials = tuple(None if t is None else t.new_empty(rows, t.numel()) for t in grads[2:])
    arguments = ((scores, value), tables, (grad, lse, inner), grads[:2], partials, far)
    launches = [
        first,
        gather._replace(programs=rows * geometry.parts(gather), arguments=(*arguments, *gather.arguments)),
    ]
    if grads[2] is not None:
        programs = ceil(bias.numel(), SUMS)
        arguments = (partials, grads[2:], far, *unspecialised((rows, bias.numel())))
        launches.append(Launch("add_up", programs, arguments, {"SUMS": SUMS}, {}, value.device))
    return launches


class _Geometry:
    """Sizes, strides and window of one call, in the form that the kernels take."""

    def __init__(
        self,
        scores: Tensor,
        value: Tensor,
        window: Window,
        layout: bool,
        maps: tuple[Tensor, ...],
        tiles: Tiles,
    ):
        self.tiles = tiles
        self.channels = (scores.shape[-2], scores.shape[-1], value.shape[-1])
        self.layout = layout
        self.bits = value.element_size() * 8
        self.device = value.device
        self.maps = Maps.of(scores, window, maps)

    def tabulate(self, tables: tuple[Tensor | None, ...], factors: Tensor, piece: int) -> Launch:
        """The launch that fills the factors of bias and weight."""
        block = (64, 16)  # taps, pairs of query and head
        constants = {
            "WINDOW": self.maps.window, "CHANNELS": self.channels[:2], "BLOCK": block, "PIECE": piece,
        }  # fmt: skip
        programs = ceil(math.prod(self.channels[:2]), block[1])
        return Launch("tabulate", programs, (tables, factors), constants, {}, self.device)

    def launch(self, kernel: str, tensors: tuple) -> Launch:
        """A launch with a program per block of windows (of positions, for `gather`) and block of heads."""
        card = architecture(self.device)
        taps = math.prod(self.maps.window[:3])
        chosen = self.tiles(kernel, card, self.bits, taps, self.channels[2])
        programs, constants, options = _cut(kernel, card, chosen, self.channels, self.layout, self.maps)
        arguments = (*tensors, self.maps.strides, self.maps.sizes)
        return Launch(kernel, programs, arguments, constants, options, self.device)

    def parts(self, launch: Launch) -> int:
        """Programs that share the heads of one block of positions."""
        block = launch.constants["BLOCK"]
        return ceil(self.channels[1], block[3] * block[4])


@lru_cache(CALLS)
def _cut(
    kernel: str,
    card: str,
    chosen: Tile,
    channels: tuple[int, int, int],
    layout: bool,
    maps: Maps,
) -> tuple[int, dict, dict[str, int]]:
    """Programs, constants and options of a launch."""
    sizes = tuple(n >> 1 for n in maps.sizes)
    planes, *size = sizes[:3] if kernel == "gather" else sizes[3:6]
    width, stride, dilation = maps.window[2::3][:3]
    # windows that share no positions are not taken together
    together = kernel in SHARING and dilation == 1 and stride < width
    windows = chosen.windows if together else 1
    block = chosen.block((size[0], ceil(size[1], windows)), channels, layout)
    rows, columns, *_ = block
    parts = ceil(channels[1], block[3] * block[4])
    exact = (block[2], parts * block[3] * block[4], block[5]) == channels
    programs = sizes[6] * planes * ceil(size[0], rows) * ceil(size[1], columns * windows) * parts
    constants = {
        "WINDOW": maps.window,
        "CHANNELS": (*channels, layout, exact, maps.unit),
        "BLOCK": (*block, windows, _piece(width, windows)),
    }
    options = {"num_warps": chosen.warps}
    if chosen.registers is not None and card.startswith("sm_"):
        options["maxnreg"] = chosen.registers
    return programs, constants, options


def _piece(width: int, windows: int) -> int:
    """How many taps of a row are unrolled: all, or equal pieces where these need too many registers.

    One window alone shares nothing among its taps.
    """
    if windows == 1:
        return width if width <= 3 else 1
    return ceil(width, ceil(width, UNROLLED))
