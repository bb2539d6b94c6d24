"""Measure tile sizes on the card at hand, for rows of `triton_table.json`."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna.ops.learned_query import triton as backend
from qna.ops.learned_query.cases import Case
from qna.ops.learned_query.layout import empty_like
from qna.ops.learned_query.triton_table import KERNELS, SHARING, Tile, tile
from qna.ops.learned_query.window import Window

# values that each attribute of a tile may take
CHOICES = {
    "elements": (8, 16, 32, 64),
    "heads": (1, 2, 4, 8),
    "columns": (4, 8, 16, 32),
    "warps": (1, 2, 4, 8),
    "registers": (96, 128, 168, 255),
    "windows": (1, 2, 3, 4),
}

Timer = Callable[[Callable[[], Any]], float]


@dataclass(frozen=True)
class Measured:
    """The best tile of one kernel in one workload, and its time and that of the tile before, in ms."""

    kernel: str
    case: Case
    tile: Tile
    time: float
    before: float


def tune(
    cases: Sequence[Case],
    dtype: torch.dtype,
    device: torch.device | str = "cuda",
    *,
    timer: Timer | None = None,
    progress: Callable[[Measured], None] = lambda measured: None,
) -> list[dict[str, Any]]:
    """Rows for `triton_table.save`, one per kernel and case: the fastest tile found.

    From the tile of the table on, one attribute at a time takes another of its values, until none helps. A
    tile whose result differs is an error; one whose registers spill is left out.

    Args:
        cases: workloads; their windows and head sizes become the rows'.
        dtype: of scores and value; its size in bits becomes the rows'.
        device: the card.
        timer: call -> ms; default `triton.testing.do_bench`, the median.
        progress: called after each kernel of each case.

    Raises:
        InvalidInput: the backend cannot run here.
    """
    if reasons := backend.missing():
        raise InvalidInput(f"tuning needs the Triton backend, and here {'; '.join(reasons)}")
    timer = timer or _bench
    device = torch.device(device)
    rows = []
    for case in cases:
        workload = _Workload(case, dtype, device)
        for kernel in KERNELS:
            measured = _tune_kernel(kernel, workload, timer)
            progress(measured)
            rows.append(_row(measured, dtype, device))
    return rows


def _tune_kernel(kernel: str, workload: _Workload, timer: Timer) -> Measured:
    case, device, dtype = workload.case, workload.value.device, workload.value.dtype
    best = tile(kernel, backend.architecture(device), dtype.itemsize * 8, case.taps, case.head_dim)
    launch, written = workload.plan(kernel, best)
    backend.run(launch)
    before = time = timer(lambda: backend.run(launch))
    tried, improved = {best}, True
    while improved:
        improved = False
        for candidate in [replace(best, **{name: v}) for name, values in CHOICES.items() for v in values]:
            if candidate in tried or (candidate.windows > 1 and kernel not in SHARING):
                continue
            tried.add(candidate)
            launch, results = workload.plan(kernel, candidate)
            compiled = backend.run(launch)
            if getattr(compiled, "n_spills", 0):  # unknown in the interpreter
                continue
            for a, e in zip(results, written, strict=True):
                torch.testing.assert_close(a.float(), e.float(), rtol=2e-2, atol=1e-3 * float(e.abs().max()))
            spent = timer(lambda launch=launch: backend.run(launch))
            if spent < time:
                best, time, improved = candidate, spent, True
                break
    return Measured(kernel, case, best, time, before)


class _Workload:
    """Tensors of one case, laid out as the layers make them, and the launches of each kernel on them."""

    def __init__(self, case: Case, dtype: torch.dtype, device: torch.device):
        self.case = case
        queries, heads, head_dim = case.queries, case.heads, case.head_dim
        make = torch.Generator(device).manual_seed(0)
        row = torch.randn(
            case.batch, *case.space, heads * (head_dim + queries), generator=make, dtype=dtype, device=device
        )
        value, scores = row.split([heads * head_dim, queries * heads], -1)
        self.value = value.unflatten(-1, (head_dim, heads)).transpose(-1, -2)
        self.scores = scores.unflatten(-1, (queries, heads))
        self.bias, self.weight = torch.randn(
            2, *case.kernel, queries, heads, generator=make, device=device
        ).unbind()
        window = {"stride": 1, "padding": "same", "dilation": 1, **case.window}
        self.window = Window.over(case.space, case.kernel, **window)
        inputs = (self.scores, self.value, self.bias, self.weight)
        out = empty_like(self.value, self.window.out)
        self.lse = torch.empty(*out.shape[:-2], queries, heads, device=device)
        backend.forward(*inputs, out, self.lse, self.window)
        self.grad = torch.randn(out.shape, generator=make, dtype=dtype, device=device)

    def plan(self, kernel: str, chosen: Tile) -> tuple[backend.Launch, list[Tensor]]:
        """The launch of one kernel, and the tensors that it writes."""
        inputs = (self.scores, self.value, self.bias, self.weight)
        if kernel == "attend":
            out, lse = empty_like(self.value, self.window.out), torch.empty_like(self.lse)
            tabulate, attend = backend.plan_forward(*inputs, out, lse, self.window, lambda *_: chosen)
            backend.run(tabulate)
            return attend, [out, lse]
        grads = (self.scores.new_empty(self.scores.shape), empty_like(self.value, self.value.shape[1:-2]))
        launches = backend.plan_backward(
            self.grad, *inputs, self.lse, grads, self.window, True, lambda *_: chosen
        )
        inner, gather = launches
        if kernel == "sum_inside":
            return inner, [inner.arguments[6]]
        gather.arguments[2][2].zero_()  # the inner sums, which `sum_inside` would fill
        return gather, [*grads]


def _row(measured: Measured, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    case = measured.case
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    shape = "x".join(map(str, (case.batch, *case.space, case.heads * case.head_dim)))
    return {
        "kernel": measured.kernel,
        "architecture": backend.architecture(device),
        "bits": dtype.itemsize * 8,
        "taps": case.taps,
        "head_dim": case.head_dim,
        "tile": asdict(measured.tile),
        "source": f"measured: {measured.time:.4g} ms (before {measured.before:.4g}) on {shape}, {card}, "
        f"torch {torch.__version__}, {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
    }


def _bench(call: Callable[[], Any]) -> float:
    from triton.testing import do_bench

    return float(do_bench(call, return_mode="median"))  # pyright: ignore[reportArgumentType]
