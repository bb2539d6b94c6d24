"""The Triton backend: what it needs and declines, and the launch of its kernels."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from qna._core.backends import Backend
from qna.ops.learned_query.layout import heads_fastest
from qna.ops.learned_query.library import declines_transforms, register
from qna.ops.learned_query.triton_table import SHARING, Tile, tile
from qna.ops.learned_query.window import Window

if TYPE_CHECKING:
    from qna.ops.learned_query import Inputs

INSTALLED = importlib.util.find_spec("triton") is not None
# set before the first import, triton runs its kernels in Python on the CPU: slow, and for tests
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_HEAD_DIM = 4096
MAX_QUERIES = 256
# most rows and numbers of partial sums for the gradients of bias and weight, whatever the size of the map
PARTIAL_ROWS = 2048
PARTIAL_SUMS = 2**22
# most taps of a row that the forward kernel unrolls; longer rows are cut into pieces
UNROLLED = 8


def missing() -> list[str]:
    """What this machine lacks."""
    reasons = []
    if not INSTALLED:
        reasons.append("triton is not installed: pip install triton")
    if not (INTERPRETED or torch.cuda.is_available()):
        reasons.append("torch sees no GPU (torch.cuda.is_available() is False)")
    return reasons


def declines(inputs: Inputs) -> list[str]:
    """Why these inputs cannot run."""
    reasons = declines_transforms()
    if inputs.device.type != DEVICE:
        reasons.append(f"device is {inputs.device.type}, needs {DEVICE}")
    if inputs.value.dtype not in DTYPES:
        names = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        reasons.append(f"dtype is {str(inputs.value.dtype).removeprefix('torch.')}, needs one of ({names})")
    if inputs.head_dim > MAX_HEAD_DIM:
        reasons.append(f"head size is {inputs.head_dim}, needs at most {MAX_HEAD_DIM}")
    if inputs.queries > MAX_QUERIES:
        reasons.append(f"there are {inputs.queries} queries, needs at most {MAX_QUERIES}")
    return reasons


# (kernel, architecture, bits, taps, head size) -> tile, as `triton_table.tile`
Tiles = Callable[[str, str, int, int, int], Tile]


class Launch(NamedTuple):
    """One kernel launch, with everything that the compiler specialises on."""

    kernel: str
    programs: int
    arguments: tuple
    constants: dict[str, tuple]
    options: dict[str, int]
    device: torch.device


def forward(
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    out: Tensor,
    lse: Tensor,
    window: Window,
) -> None:
    """Fill the output and the log-sum-exp of every window."""
    for launch in plan_forward(scores, value, bias, weight, out, lse, window):
        run(launch)


def backward(
    grad: Tensor,
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    lse: Tensor,
    grads: tuple[Tensor, Tensor],
    window: Window,
    parameters: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Fill the gradients of scores and value; return those of bias and weight, None where not wanted."""
    plan = plan_backward(grad, scores, value, bias, weight, lse, grads, window, parameters)
    for launch in plan:
        run(launch)
    d_bias, d_weight = (
        rows if rows is None else rows.sum(0).view(bias.shape) for rows in plan[-1].arguments[4]
    )
    return d_bias, d_weight


def plan_forward(
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    out: Tensor,
    lse: Tensor,
    window: Window,
    tiles: Tiles = tile,
) -> list[Launch]:
    """The launches that fill `out` and `lse`, the last of them by a tile for whose size `tiles` is asked."""
    layout = heads_fastest(value)
    scores, value = _dense(scores, False), _dense(value, layout)
    geometry = _Geometry(scores, value, window, layout, (scores, value, out), tiles)
    tables = (_table(bias), _table(weight))
    attend = geometry.launch("attend", window.out, ())
    piece = attend.constants["BLOCK"][-1]
    taps = math.prod(window.kernel[:-1]) * _ceil(window.kernel[-1], piece) * piece
    factors = lse.new_empty(1 + 2 * taps, *bias.shape[-2:])
    return [
        geometry.tabulate(tables, factors, piece),
        attend._replace(arguments=((scores, value), tables, factors, (out, lse), *attend.arguments)),
    ]


def plan_backward(
    grad: Tensor,
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    lse: Tensor,
    grads: tuple[Tensor, Tensor],
    window: Window,
    parameters: bool,
    tiles: Tiles = tile,
) -> list[Launch]:
    """The launches that fill the gradients of scores and value, then the partial sums of bias and weight."""
    layout = heads_fastest(value)
    scores, value, grad = _dense(scores, False), _dense(value, layout), _dense(grad, layout)
    geometry = _Geometry(scores, value, window, layout, (scores, value, grad, *grads), tiles)
    tables = (_table(bias), _table(weight))
    inner = torch.empty_like(lse)
    first = geometry.launch("sum_inside", window.out, (scores, value, *tables, grad, lse, inner))
    gather = geometry.launch("gather", scores.shape[1:-2], ())
    blocks = gather.programs // geometry.parts(gather)
    most = max(1, min(PARTIAL_ROWS, PARTIAL_SUMS // bias.numel()))
    rows = _ceil(blocks, _ceil(blocks, most))  # programs with runs of as many blocks, none empty
    partials = tuple(lse.new_empty(rows, t.numel()) if parameters and t is not None else None for t in tables)
    arguments = ((scores, value), tables, (grad, lse, inner), grads, partials)
    return [
        first,
        gather._replace(programs=rows * geometry.parts(gather), arguments=(*arguments, *gather.arguments)),
    ]


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
        self.batch = scores.shape[0]
        self.taps = math.prod(window.kernel)
        self.bits = value.element_size() * 8
        self.device = value.device
        self.sizes = (*_three(scores.shape[1:-2], 1), *_three(window.out, 1), self.batch)
        self.window = (
            *_three(window.kernel, 1),
            *_three(window.stride, 1),
            *_three(window.dilation, 1),
            *_three(window.before, 0),
        )
        # an axis of one position has no stride: what torch reports for it must not cost alignment
        strides = [
            [0 if n == 1 else s for n, s in zip(m.shape[:-2], m.stride()[:-2], strict=True)] for m in maps
        ]
        self.unit = math.gcd(16, *(s for row in strides for s in row))
        self.strides = tuple(
            (row[0] // self.unit, *_three([s // self.unit for s in row[1:]], 0)) for row in strides
        )

    def tabulate(self, tables: tuple[Tensor | None, ...], factors: Tensor, piece: int) -> Launch:
        """The launch that fills the factors of bias and weight."""
        block = (64, 16)  # taps, pairs of query and head
        constants = {"WINDOW": self.window, "CHANNELS": self.channels[:2], "BLOCK": block, "PIECE": piece}
        programs = _ceil(math.prod(self.channels[:2]), block[1])
        return Launch("tabulate", programs, (tables, factors), constants, {}, self.device)

    def launch(self, kernel: str, space: tuple[int, ...], tensors: tuple) -> Launch:
        """A launch with one program per block of a map of size `space` and block of heads."""
        heads = self.channels[1]
        card = architecture(self.device)
        chosen = self.tiles(kernel, card, self.bits, self.taps, self.channels[2])
        planes, *size = _three(space, 1)
        width, stride, dilation = self.window[2::3][:3]
        # windows that share no positions are not taken together
        together = kernel in SHARING and dilation == 1 and stride < width
        windows = chosen.windows if together else 1
        block = chosen.block((size[0], _ceil(size[1], windows)), self.channels, self.layout)
        rows, columns, *_ = block
        parts = _ceil(heads, block[3] * block[4])
        exact = (block[2], parts * block[3] * block[4], block[5]) == self.channels
        programs = self.batch * planes * _ceil(size[0], rows) * _ceil(size[1], columns * windows) * parts
        constants = {
            "WINDOW": self.window,
            "CHANNELS": (*self.channels, self.layout, exact, self.unit),
            "BLOCK": (*block, windows, _piece(width, windows)),
        }
        arguments = (*tensors, tuple(map(_odd, self.strides)), _odd(self.sizes))
        options = {"num_warps": chosen.warps}
        if chosen.registers is not None and card.startswith("sm_"):
            options["maxnreg"] = chosen.registers
        return Launch(kernel, programs, arguments, constants, options, self.device)

    def parts(self, launch: Launch) -> int:
        """Programs that share the heads of one block of positions."""
        block = launch.constants["BLOCK"]
        return _ceil(self.channels[1], block[3] * block[4])


def architecture(device: torch.device) -> str:
    """The name by which the table knows a card: "sm_90", "gfx942"; "cpu" for the interpreter."""
    if device.type != "cuda":
        return device.type
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return properties.gcnArchName.split(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def kernels() -> dict[str, Any]:
    """The compiled-on-demand kernels by name; here triton is imported."""
    from qna.ops.learned_query.triton_backward import gather, sum_inside
    from qna.ops.learned_query.triton_forward import attend, tabulate

    return {"tabulate": tabulate, "attend": attend, "sum_inside": sum_inside, "gather": gather}


def run(launch: Launch) -> Any:
    """Run it on the device of its tensors and the current stream; returns the compiled kernel."""
    kernel = kernels()[launch.kernel]
    with torch.cuda.device(launch.device) if launch.device.type == "cuda" else nullcontext():
        return kernel[(launch.programs,)](*launch.arguments, **launch.constants, **launch.options)


def _three(axes, fill: int) -> tuple[int, ...]:
    """One to three axes as three, the new ones first."""
    return (*(fill,) * (3 - len(axes)), *axes)


def _piece(width: int, windows: int) -> int:
    """How many taps of a row are unrolled: all, or equal pieces where these need too many registers.

    One window alone shares nothing among its taps.
    """
    if windows == 1:
        return width if width <= 3 else 1
    return _ceil(width, _ceil(width, UNROLLED))


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _odd(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """As the kernels take integers: neither 1 nor a multiple of 16, for which they would be compiled anew."""
    return tuple(2 * n + 1 for n in numbers)


def _table(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.float().contiguous()


def _dense(t: Tensor, transposed: bool) -> Tensor:
    """`t` (..., m, n), copied unless its last two axes lie densely in this order, or `transposed`."""
    if transposed:
        return _dense(t.transpose(-1, -2), False).transpose(-1, -2)
    (m, n), (sm, sn) = t.shape[-2:], t.stride()[-2:]
    dense = (n == 1 or sn == 1) and (m == 1 or sm == n)
    return t if dense else t.contiguous()


attend = register("triton", forward, backward, device=DEVICE, keeps_lse=True)

BACKEND = Backend("triton", device=DEVICE, missing=missing, declines=declines, run=attend)
