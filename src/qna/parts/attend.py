"""Attention of dense keys: torch's fused form where that gives what is asked of it."""

from __future__ import annotations

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch import Tensor


def attend(
    query: Tensor, key: Tensor, value: Tensor, added: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """``softmax(query key^T / sqrt(d) + added) value``, for queries that all have a key.

    Torch's fused attention has no forward-mode derivative, and on a CPU no rule for `torch.func.vmap` and no
    gradient of what is added: there this is written out. (What torch itself does for that gradient guards
    against queries without keys, of which there are none.)

    Args:
        query: (..., n, d).
        key: (..., m, d).
        value: (..., m, e).
        added: to the scores, (..., n, m); -inf for keys that a query does not see.
        scale: of the products, in the place of ``1 / sqrt(d)``.

    Returns:
        (..., n, e).
    """
    learned = added is not None and added.requires_grad and added.device.type == "cpu"
    if transformed() or (learned and not torch.compiler.is_compiling()):
        logits = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-1, -2)
        return (logits if added is None else logits + added).softmax(-1) @ value
    return F.scaled_dot_product_attention(query, key, value, attn_mask=added, scale=scale)


def transformed() -> bool:
    """Whether tangents go forward or `torch.func` is at work, which fused attention does not follow."""
    # the compiler has transforms of its own, and cannot trace the questions
    return not torch.compiler.is_compiling() and (
        fwAD._current_level >= 0 or torch._C._are_functorch_transforms_active()
    )
