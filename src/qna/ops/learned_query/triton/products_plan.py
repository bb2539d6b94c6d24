"""The launches of the kernels by matrix products: which calls they take, and what these need."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from qna.ops._shared.triton.arguments import CALLS, ceil, power, three_axes
from qna.ops._shared.triton.launch import Launch
from qna.ops._shared.triton.runtime import INTERPRETED, architecture, compiler, processors
from qna.ops._shared.window import Window
from qna.ops.learned_query.layout import dense, heads_fastest, parameter
from qna.ops.learned_query.triton import windows_plan
from qna.ops.learned_query.triton.arguments import Maps
from qna.ops.learned_query.triton.tiles import Patch, patch
from qna.ops.learned_query.triton.windows_plan import PARTIAL_SUMS

# windows of a patch: rows of an operand of matrix units
PLACES = 16
# bytes of shared memory that the matrices of a program may take; every card since sm_80 has room for them
MATRICES = 65536
# which a position under a patch takes in two of them, in bf16
BYTES = 2 * 2 * PLACES
QUERIES = (1, 2, 4)
HEAD_DIMS = (4, 8, 16, 32)
# before this version the compiler brings operands to the matrix units by single numbers
COMPILER = (3, 7)
# up to so many taps a forward that takes windows by threads is the faster; measured on sm_90
FEW_TAPS = 9

# (kernel, architecture, bits, taps, head size) -> patch, as `tiles.patch`
Patches = Callable[[str, str, int, int, int], Patch]


def fits(scores: Tensor, value: Tensor, window: Window) -> bool:
    """Whether these kernels take a call, and are faster than those that take windows by threads."""
    if value.dtype != torch.bfloat16 or scores.shape[-2] not in QUERIES or value.shape[-1] not in HEAD_DIMS:
        return False
    card = architecture(value.device)
    if not (INTERPRETED or (card.startswith("sm_") and int(card[3:]) >= 80 and compiler() >= COMPILER)):
        return False
    return _takes(scores.shape[-2], window, tuple(t.stride()[1:-2] for t in (scores, value)))


@lru_cache(CALLS)
def _takes(queries: int, window: Window, strides: tuple[tuple[int, ...], ...]) -> bool:
    kernel = three_axes(window.kernel, 1)
    if kernel[0] != 1 or three_axes(window.before, 0)[0] or set(window.stride) | set(window.dilation) != {1}:
        return False
    height, width = _under(kernel)
    if BYTES * queries * ceil(height * width, 64) * 64 > MATRICES:
        return False
    # offsets within a block of patches have 32 bits
    return max(height * max(row[-2:]) + (width + 64) * row[-1] for row in strides) < 2**31


def fits_forward(scores: Tensor, value: Tensor, window: Window) -> bool:
    """The same, of a forward."""
    return math.prod(window.kernel) > FEW_TAPS and fits(scores, value, window)


def forward(
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    out: Tensor,
    lse: Tensor | None,
    window: Window,
    patches: Patches = patch,
) -> list[Launch]:
    """The launches that fill `out` and, where it is wanted, `lse`."""
    layout = heads_fastest(value)
    scores, value = dense(scores, False), dense(value, layout)
    call = _Call(scores, value, bias, weight, (scores, value, out), layout, window, patches)
    return [
        call.lay_out("attend_by_products"),
        call.launch("attend_by_products", ((out, lse),)),
        windows_plan.forward_if_far(scores, value, bias, weight, out, lse, window, call.far),
    ]


def backward(
    grad: Tensor,
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    lse: Tensor,
    grads: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    window: Window,
    patches: Patches = patch,
) -> list[Launch]:
    """The launches that fill the gradients of scores, value, bias and weight, the last two where wanted."""
    layout = heads_fastest(value)
    scores, value, grad = dense(scores, False), dense(value, layout), dense(grad, layout)
    maps = (scores, value, grad, *grads[:2])
    call = _Call(scores, value, bias, weight, maps, layout, window, patches)
    inner = torch.empty_like(lse)
    windows = (grad, lse, inner)
    launches = [
        call.lay_out("gather_by_products"),
        call.launch("sum_inside_by_products", (windows[:2], inner)),
        call.launch("gather_by_products", (windows, grads[:2])),
    ]
    if grads[2] is not None:
        launches += call.correlate(windows, grads[2:])
    far = windows_plan.backward(grad, scores, value, bias, weight, lse, grads, window, call.far)
    return [*launches, *far]


class _Call:
    """Sizes and parameters of one call, in the form that the kernels take."""

    def __init__(
        self,
        scores: Tensor,
        value: Tensor,
        bias: Tensor,
        weight: Tensor | None,
        maps: tuple[Tensor, ...],
        layout: bool,
        window: Window,
        patches: Patches,
    ):
        self.inputs = (scores, value)
        self.channels = (*bias.shape[-2:], value.shape[-1], layout, True)
        self.patches = patches
        self.maps = Maps.of(scores, window, maps)
        self.taps = math.prod(window.kernel)
        self.tables = (parameter(bias), parameter(weight))
        self.device = value.device
        self.pairs = bias.shape[-2] * bias.shape[-1]
        self.tops = torch.empty(bias.shape[-2:], device=self.device)
        self.far = torch.empty(1, dtype=torch.int32, device=self.device)
        self.matrices = torch.empty(0)

    def lay_out(self, kernel: str) -> Launch:
        """The launch that makes the matrices as `kernel` takes them, and clears the flag."""
        constants = self._cut(kernel).constants
        *_, chunk, chunks, _, _ = constants["PATCH"]
        # the interpreter could but truncate to bf16
        dtype = torch.float32 if INTERPRETED else torch.bfloat16
        shape = (2, 2, self.pairs, PLACES, chunk * chunks)
        self.matrices = torch.empty(shape, dtype=dtype, device=self.device)
        arguments = (self.tables, self.matrices, self.tops, self.far)
        constants = {**constants, "TAPS": power(self.taps)}
        return Launch("lay_out", 2 * self.pairs, arguments, constants, {}, self.device)

    def launch(self, kernel: str, tensors: tuple) -> Launch:
        """A launch whose programs share the blocks of patches."""
        # one chunk for all kernels that read one set of matrices
        cut = self._cut(kernel, self.matrices.shape[-1])
        programs = max(1, min(cut.blocks, cut.programs * processors(self.device) // cut.jobs))
        return self._launch(kernel, cut, programs, (self.matrices, self.tops, *tensors))

    def correlate(self, windows: tuple[Tensor, ...], grads: tuple[Tensor | None, ...]) -> list[Launch]:
        """The launches that fill the gradients of bias and weight."""
        cut = self._cut("correlate")
        *_, chunk, chunks, _, _ = cut.constants["PATCH"]
        jobs = cut.jobs * chunks
        numbers = 2 * self.pairs * PLACES * chunk * chunks
        most = min(cut.blocks, cut.programs * processors(self.device) // jobs, PARTIAL_SUMS // numbers)
        partials = torch.empty(max(1, most), numbers, device=self.device)
        fold = (partials, 2 * len(partials) + 1, self.tables, self.tops, grads)
        constants = {**cut.constants, "ROWS": 32}
        return [
            self._launch("correlate", cut, len(partials) * chunks, (self.tops, windows, partials)),
            Launch("fold", self.taps * self.pairs, fold, constants, {}, self.device),
        ]

    def _launch(self, kernel: str, cut: _Cut, programs: int, tensors: tuple) -> Launch:
        arguments = (self.inputs, *tensors, self.far, self.maps.strides, self.maps.sizes)
        return Launch(kernel, programs * cut.jobs, arguments, cut.constants, cut.options, self.device)

    def _cut(self, kernel: str, positions: int | None = None) -> _Cut:
        card = architecture(self.device)
        chosen = self.patches(kernel, card, 16, self.taps, self.channels[2])
        return _cut(kernel, card, chosen, self.channels, self.maps, positions)


class _Cut(NamedTuple):
    """What of a launch depends on sizes and its `Patch` alone.

    Attributes:
        constants: for the compiler.
        options: for the compiler.
        blocks: blocks of patches.
        jobs: programs that share the heads of one.
        programs: as in the `Patch`.
    """

    constants: dict
    options: dict[str, int]
    blocks: int
    jobs: int
    programs: int


@lru_cache(CALLS)
def _cut(
    kernel: str,
    card: str,
    chosen: Patch,
    channels: tuple[int, int, int, bool, bool],
    maps: Maps,
    positions: int | None,
) -> _Cut:
    """As its `Patch` says, or as serves matrices of K = `positions`."""
    queries, heads, head_dim, layout, _ = channels
    rows, columns = _shape(maps.window)
    chunk = chosen.chunk if layout else chosen.plain or chosen.chunk
    chunk = chunk if positions is None else math.gcd(positions, chunk)
    chunks = ceil(positions or math.prod(_under(maps.window)), chunk)
    # an operand has at least 16 columns
    wide = max(16 // head_dim, chosen.patches * 8 // head_dim, 1)
    together = math.gcd(heads, chosen.heads)
    while together > 1 and BYTES * queries * together * chunk * chunks > MATRICES:
        together //= 2
    constants = {
        "WINDOW": maps.window,
        "CHANNELS": (*channels, maps.unit),
        "PATCH": (rows, columns, chunk, chunks, wide, together),
    }
    # copies of a later block's maps would take the registers that the sums need
    options = {"num_warps": chosen.warps, "num_stages": 1}
    if chosen.registers is not None and card.startswith("sm_"):
        options["maxnreg"] = chosen.registers
    sizes = tuple(n >> 1 for n in maps.sizes)
    planes, height, width = sizes[:3] if kernel == "gather_by_products" else sizes[3:6]
    blocks = sizes[6] * planes * ceil(height, rows) * ceil(width, columns * wide)
    return _Cut(constants, options, blocks, heads // together, chosen.programs)


def _shape(window: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a patch under a window of `Maps`."""
    return (4, 4) if window[1] > 1 else (1, PLACES)


def _under(window: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the positions under a patch."""
    rows, columns = _shape(window)
    return rows + window[1] - 1, columns + window[2] - 1
