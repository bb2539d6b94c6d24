"""The Triton backend: what it needs and declines, and its launches one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qna._core.backends import Backend
from qna.ops._shared.triton.launch import run
from qna.ops._shared.triton.runtime import DEVICE, missing
from qna.ops.neighborhood.library import OP
from qna.ops.neighborhood.triton import plan

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# heads of more channels do not fit a program's registers; positions and taps are counted in 32 bits
MOST = {"head_dim": 256, "value_dim": 256, "positions": 2**30, "taps": 2**28}


def kernels() -> dict[str, Any]:
    """The compiled-on-demand kernels by name; here triton is imported."""
    from qna.ops.neighborhood.triton import backward, forward

    return {
        "attend": forward.attend,
        "query_gradients": backward.query_gradients,
        "key_gradients": backward.key_gradients,
        "bias_gradients": backward.bias_gradients,
        "extra_gradients": backward.extra_gradients,
    }


def forward(*arguments: Any) -> None:
    """Fill the output, and the log-sum-exp of every query where it is wanted."""
    *tensors, out, lse, scale, axes = arguments
    for launch in plan.forward(plan.Given.of(*tensors), out, lse, scale, axes):
        run(launch, kernels())


def backward(grad: Tensor, grad_lse: Tensor, *arguments: Any) -> Sequence[Tensor | None]:
    """Fill the gradients of q, k and v; return those of bias, extra keys and extra values."""
    *tensors, lse, grads, scale, axes, wanted = arguments
    given = plan.Given.of(*tensors)
    partials = plan.partials(given, axes) if wanted else (None, None, None)
    written = [t if plan.is_dense(t) else t.new_empty(t.shape) for t in grads]
    for launch in plan.backward(grad, grad_lse, given, lse, written, partials, scale, axes):
        run(launch, kernels())
    for to, t in zip(grads, written, strict=True):
        if t is not to:
            to.copy_(t)
    if not wanted:
        return partials
    # a sum of no extra keys has no parts
    return [
        torch.zeros_like(t) if part is None and t is not None else None if part is None else part.sum(0)
        for part, t in zip(partials, tensors[3:6], strict=True)
    ]


def attend(*arguments: Any, return_lse: bool) -> Any:
    """As `reference.attend`."""
    return _attend(*arguments, return_kept=return_lse)


_attend = OP.register("triton", forward, backward, device=DEVICE, keeps=True)

BACKEND = Backend("triton", attend, device=DEVICE, dtypes=DTYPES, most=MOST, opaque=True, missing=missing)
