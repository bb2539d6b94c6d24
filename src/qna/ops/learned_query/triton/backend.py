"""The Triton backend: what it needs and declines, and which of its plans takes a call."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qna._core.backends import Backend
from qna.ops._shared.triton.runtime import DEVICE, missing
from qna.ops._shared.window import Window
from qna.ops.learned_query.layout import empty_like, groups, subpixels
from qna.ops.learned_query.library import OP
from qna.ops.learned_query.triton import products_plan, windows_plan
from qna.ops.learned_query.triton.launch import run

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST = {"head_dim": 4096, "queries": 256}


def forward(
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    out: Tensor,
    lse: Tensor | None,
    window: Window,
    factor: tuple[int, ...],
) -> None:
    """Fill the output, and the log-sum-exp of every window where it is wanted.

    The sub-pixels of an output with a factor are filled one after the other, where they lie.
    """
    queries = (groups(t, factor) for t in (scores, bias, weight))
    kept = [None] * math.prod(factor) if lse is None else lse
    for s, b, w, to, log in zip(*queries, subpixels(out, factor), kept, strict=True):
        plan = products_plan if products_plan.fits_forward(s, value, window) else windows_plan
        for launch in plan.forward(s, value, b, w, to, log, window):
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
    factor: tuple[int, ...],
    parameters: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Fill the gradients of scores and value; return those of bias and weight, None where not wanted.

    With a factor, each sub-pixel's part of the value's gradient is made in fp32 and added to those before.
    """
    of_scores, of_value = grads
    number, tables = math.prod(factor), []
    total = of_value if number == 1 else empty_like(value, value.shape[1:-2], torch.float32)
    part = total if number == 1 else torch.empty_like(total)
    queries = (groups(t, factor) for t in (scores, bias, weight, of_scores))
    rounds = zip(*queries, subpixels(grad, factor), lse, strict=True)
    for place, (s, b, w, of_s, g, log) in enumerate(rounds):
        plan = products_plan if products_plan.fits(s, value, window) else windows_plan
        of_bias, of_weight = (
            torch.empty_like(t, dtype=torch.float32, memory_format=torch.contiguous_format)
            if parameters and t is not None
            else None
            for t in (b, w)
        )
        wanted = (of_s, part if place else total, of_bias, of_weight)
        for launch in plan.backward(g, s, value, b, w, log, wanted, window):
            run(launch)
        if place:
            total += part
        tables.append((of_bias, of_weight))
    if number > 1:
        of_value.copy_(total)
    of_bias, of_weight = (None if of[0] is None else torch.cat(of, -2) for of in zip(*tables, strict=True))
    return of_bias, of_weight


BACKEND = Backend(
    "triton",
    OP.register("triton", forward, backward, device=DEVICE, keeps=True),
    device=DEVICE,
    dtypes=DTYPES,
    most=MOST,
    opaque=True,
    missing=missing,
)
