"""Products of matrices on a CPU by each route that torch has: which is fastest for a shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna._core.processor import this_processor
from qna.bench.measure.calls import time_calls
from qna.bench.measure.harness import Plan
from qna.bench.measure.machine import Stamp
from qna.parts.linear import take
from qna.parts.product_routes import CONVOLUTION, INFERENCE, INNER_PRODUCT, LINEAR, TRAINING, MeasuredProduct

Shape = tuple[int, int, int]

ROUTES = {INFERENCE: (LINEAR, CONVOLUTION, INNER_PRODUCT), TRAINING: (LINEAR, CONVOLUTION)}
# those of backbones: positions of a few maps, channels, and the projections and MLPs around them
POSITIONS = (196, 784, 3136, 12544, 50176)
CHANNELS = (64, 128, 256, 512, 1024)
# multiply-adds of the largest and the smallest product: beyond, networks are rare, or a call costs more
MOST, LEAST = 2**31, 2**20


def shapes() -> list[Shape]:
    """(positions, C, C') of all products that are measured."""
    pairs = {(C, out) for C in CHANNELS for out in (C, 4 * C)} | {(4 * C, C) for C in CHANNELS}
    return [
        (positions, *pair)
        for positions in POSITIONS
        for pair in sorted(pairs)
        if LEAST <= positions * math.prod(pair) <= MOST and max(pair) <= 2048
    ]


def measured(
    plan: Plan, which: Sequence[Shape], progress: Callable[[str], None]
) -> Iterator[MeasuredProduct]:
    """The fastest route of each shape for inference and for training, on one core.

    Raises:
        InvalidInput: this system does not tell what its processor is, so that nothing could be looked up.
    """
    name = this_processor().name
    if not name:
        raise InvalidInput("this processor has no name to look its products up by: needs Linux on x86, AVX2")
    stamp = Stamp.now("cpu")
    for shape in which:
        for mode, routes in ROUTES.items():
            calls = _calls(shape, mode, routes)
            medians = time_calls(calls, plan=plan).medians
            best = min(routes, key=medians.__getitem__)
            gain = round(medians[LINEAR] / medians[best], 3)
            rate = 2e-9 * math.prod(shape) * (3 if mode == TRAINING else 1)
            told = ", ".join(f"{route} {rate / medians[route]:.1f}" for route in routes)
            progress(f"{shape[0]} x {shape[1]} -> {shape[2]} {mode}: {told} GFLOP/s")
            yield MeasuredProduct(name, mode, *shape, best, gain, stamp.commit, stamp.date)


def _calls(shape: Shape, mode: str, routes: Sequence[str]) -> dict[str, Callable[[], object]]:
    positions, C, out = shape
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, gradient = (
        torch.randn(size, generator=generator)
        for size in ((positions, C), (out, C), (out,), (positions, out))
    )
    inputs = tuple(t.requires_grad_(mode == TRAINING) for t in (x, weight, bias))

    def call(route: str) -> Tensor | tuple[Tensor, ...]:
        if mode == TRAINING:
            return torch.autograd.grad(take(route, *inputs), inputs, gradient)
        with torch.no_grad():
            return take(route, *inputs)

    return {route: partial(call, route) for route in routes}
