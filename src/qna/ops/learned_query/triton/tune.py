"""Measure tile sizes on the card at hand, for rows of `tiles.json`."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna.ops._shared.triton.launch import Launch
from qna.ops._shared.triton.runtime import architecture
from qna.ops._shared.window import Window
from qna.ops.learned_query.cases import Case
from qna.ops.learned_query.layout import empty_like
from qna.ops.learned_query.triton import backend, products_plan, windows_plan
from qna.ops.learned_query.triton.launch import run
from qna.ops.learned_query.triton.tiles import KERNELS, PRODUCTS, SHARING, Patch, Tile, patch, tile

# hardly ever runs: any tile will do
RARE = ("attend_far",)
# values that each attribute of a tile may take
CHOICES = {
    "elements": (8, 16, 32, 64),
    "heads": (1, 2, 4, 8),
    "columns": (4, 8, 16, 32),
    "warps": (1, 2, 4, 8),
    "registers": (96, 128, 168, 255),
    "windows": (1, 2, 3, 4),
}

# and of a patch
PATCHES = {
    "patches": (2, 4),
    "heads": (1, 2, 4, 8),
    "chunk": (16, 32, 64),
    "warps": (1, 2, 4),
    "registers": (None, 168, 200),
    "programs": (4, 8, 16),
}

Timer = Callable[[Callable[[], Any]], float]


@dataclass(frozen=True)
class Measured:
    """The best tile or patch of one kernel in one workload, its time and that of the one before, in ms."""

    kernel: str
    case: Case
    tile: Tile | Patch
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
    """Rows for `tiles.save`, one per kernel and case: the fastest tile, or patch, found.

    From that of the file on, one attribute at a time takes another of its values, until none helps. One
    whose result differs is an error; one that spills registers, or that does not fit the card, is left out.
    The kernels by matrix products are measured on the cases that they take.

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
        for kernel in workload.kernels():
            measured = _tune_kernel(kernel, workload, timer)
            progress(measured)
            rows.append(_row(measured, dtype, device))
    return rows


def _tune_kernel(kernel: str, workload: _Workload, timer: Timer) -> Measured:
    best = workload.chosen(kernel)
    trial = workload.trial(kernel, best)
    trial.run()
    written = trial.written
    before = time = timer(lambda: run(trial.timed))
    tried, improved = {best}, True
    while improved:
        improved = False
        for candidate in _neighbours(kernel, best):
            if candidate in tried:
                continue
            tried.add(candidate)
            spent = _time(workload.trial(kernel, candidate), written, timer)
            if spent < time:
                best, time, improved = candidate, spent, True
                break
    workload.found[kernel] = best
    return Measured(kernel, workload.case, best, time, before)


def _neighbours(kernel: str, best: Tile | Patch) -> Iterator[Tile | Patch]:
    """All that differ from `best` in one attribute."""
    for name, values in (CHOICES if isinstance(best, Tile) else PATCHES).items():
        if name != "windows" or kernel in SHARING:
            yield from (replace(best, **{name: v}) for v in values)


def _time(trial: _Trial, written: list[Tensor], timer: Timer) -> float:
    """Time of a kernel in ms, infinite if it does not fit the card; an error if it writes something else."""
    from triton.runtime.errors import OutOfResources, PTXASError

    try:
        compiled = trial.run()
    except (OutOfResources, PTXASError):
        return float("inf")
    if getattr(compiled, "n_spills", 0):  # unknown in the interpreter
        return float("inf")
    for a, e in zip(trial.written, written, strict=True):
        torch.testing.assert_close(a.float(), e.float(), rtol=2e-2, atol=1e-3 * float(e.abs().max()))
    return timer(lambda: run(trial.timed))


class _Trial(NamedTuple):
    """All launches of a forward or a backward, which of them is to be timed, and what they write."""

    launches: list[Launch]
    at: int
    written: list[Tensor]

    @property
    def timed(self) -> Launch:
        return self.launches[self.at]

    def run(self) -> Any:
        """Run all; returns the compiled kernel of the one to be timed."""
        return [run(launch) for launch in self.launches][self.at]


class _Workload:
    """Tensors of one case, laid out as the layers make them, and the launches of each kernel on them."""

    def __init__(self, case: Case, dtype: torch.dtype, device: torch.device):
        self.case = case
        self.found: dict[str, Tile | Patch] = {}
        queries, heads, head_dim = case.queries, case.heads, case.head_dim
        make = torch.Generator(device).manual_seed(0)
        row = torch.randn(
            case.batch, *case.space, heads * (head_dim + queries), generator=make, dtype=dtype, device=device
        )
        value, scores = row.split([heads * head_dim, queries * heads], -1)
        value = value.unflatten(-1, (head_dim, heads)).transpose(-1, -2)
        scores = scores.unflatten(-1, (queries, heads))
        bias, weight = torch.randn(2, *case.kernel, queries, heads, generator=make, device=device).unbind()
        self.inputs = (scores, value, bias, weight)
        window = {"stride": 1, "padding": "same", "dilation": 1, **case.window}
        self.window = Window.over(case.space, case.kernel, **window)
        out = empty_like(value, self.window.out)
        self.lse = torch.empty(*out.shape[:-2], queries, heads, device=device)
        backend.forward(*self.inputs, out, self.lse[None], self.window, (1,) * len(case.space))
        self.grad = torch.randn(out.shape, generator=make, dtype=dtype, device=device)

    def kernels(self) -> list[str]:
        """The kernels to be tuned."""
        scores, value, *_ = self.inputs
        by_products = PRODUCTS if products_plan.fits(scores, value, self.window) else ()
        return [kernel for kernel in (*KERNELS, *by_products) if kernel not in RARE]

    def chosen(self, kernel: str) -> Any:
        """The tile or patch of a kernel: what was found, or else that of `tiles.json`."""
        if kernel in self.found:
            return self.found[kernel]
        value, case = self.inputs[1], self.case
        look_up = patch if kernel in PRODUCTS else tile
        bits = value.element_size() * 8
        return look_up(kernel, architecture(value.device), bits, case.taps, case.head_dim)

    def trial(self, kernel: str, candidate: Tile | Patch) -> _Trial:
        """`kernel` with `candidate`, in the company of the others as they were found."""

        def choose(of: str, *_: Any) -> Any:
            return candidate if of == kernel else self.chosen(of)

        by_products = kernel in PRODUCTS
        plan = products_plan if by_products else windows_plan
        scores, value, bias, weight = self.inputs
        if kernel.startswith("attend"):
            written = [empty_like(value, self.window.out), torch.empty_like(self.lse)]
            launches = plan.forward(*self.inputs, written[0], written[1], self.window, choose)
        else:
            grads = (
                scores.new_empty(scores.shape),
                empty_like(value, value.shape[1:-2]),
                torch.empty_like(bias),
                torch.empty_like(weight),
            )
            written = list(grads)
            call = (self.grad, *self.inputs, self.lse, grads, self.window)
            if by_products:
                launches = products_plan.backward(*call, patches=choose)
            else:
                launches = windows_plan.backward(*call, tiles=choose)
        return _Trial(launches, [launch.kernel for launch in launches].index(kernel), written)


def _row(measured: Measured, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    case = measured.case
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    shape = "x".join(map(str, (case.batch, *case.space, case.heads * case.head_dim)))
    return {
        "kernel": measured.kernel,
        "architecture": architecture(device),
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
