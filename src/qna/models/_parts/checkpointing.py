"""Blocks whose insides are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(block: nn.Module, *inputs: Any) -> Any:
    """``block(*inputs)``; values, gradients and buffers as without, in the time of one forward more."""
    # the compiler repeats no change of a buffer, and takes no contexts but its own
    if torch.compiler.is_compiling():
        return checkpoint(block, *inputs, use_reentrant=False)
    return checkpoint(
        block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _batch_norms_at_rest(block))
    )


@contextmanager
def _batch_norms_at_rest(block: nn.Module) -> Iterator[None]:
    """Batch norms keep their running figures: what is computed again would enter them twice."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, count in kept:
        norm.momentum, norm.num_batches_tracked = 0.0, count.clone()  # type: ignore[union-attr]
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count
