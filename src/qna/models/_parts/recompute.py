"""Gradient checkpointing of a block: what it computes is not kept but computed again for the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(block: nn.Module, *inputs: Tensor) -> Any:
    """``block(*inputs)``, computed once more in the backward pass, where batch norms keep their averages."""
    if torch.compiler.is_compiling():
        # what is compiled computes again without writing again
        return checkpoint(block, *inputs, use_reentrant=False)
    return checkpoint(
        block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _averages_kept(block))
    )


@contextmanager
def _averages_kept(block: nn.Module) -> Iterator[None]:
    """In which running averages and numbers of batches stay, though the batch is what normalises."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # not without averages at all: a checkpoint counts the tensors that are saved
        norm.momentum = 0.0
        norm.num_batches_tracked = (
            None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        )
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
