"""The Triton backend: what it needs and declines, and which of its plans takes a call."""

from __future__ import annotations

import torch
from torch import Tensor

from qna._core.backends import Backend
from qna.ops._shared.window import Window
from qna.ops.learned_query.library import OP
from qna.ops.learned_query.triton import products_plan, windows_plan
from qna.ops.learned_query.triton.launch import run
from qna.ops.learned_query.triton.runtime import INSTALLED, INTERPRETED

DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST = {"head_dim": 4096, "queries": 256}


def missing() -> list[str]:
    """What this machine lacks."""
    reasons = []
    if not INSTALLED:
        reasons.append("triton is not installed: pip install triton")
    if not (INTERPRETED or torch.cuda.is_available()):
        reasons.append("torch sees no GPU (torch.cuda.is_available() is False)")
    return reasons


def forward(
    scores: Tensor,
    value: Tensor,
    bias: Tensor,
    weight: Tensor | None,
    out: Tensor,
    lse: Tensor | None,
    window: Window,
) -> None:
    """Fill the output, and the log-sum-exp of every window where it is wanted."""
    by_products = products_plan.fits_forward(scores, value, window)
    plan = products_plan if by_products else windows_plan
    for launch in plan.forward(scores, value, bias, weight, out, lse, window):
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
    by_products = products_plan.fits(scores, value, window)
    plan = products_plan if by_products else windows_plan
    of_bias, of_weight = (
        torch.empty_like(t, dtype=torch.float32, memory_format=torch.contiguous_format)
        if parameters and t is not None
        else None
        for t in (bias, weight)
    )
    wanted = (*grads, of_bias, of_weight)
    for launch in plan.backward(grad, scores, value, bias, weight, lse, wanted, window):
        run(launch)
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
