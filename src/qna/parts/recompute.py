"""What is computed again for its gradient, as checkpointed blocks are, and what it must not do twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def recomputing() -> bool:
    """Whether a backward pass is what runs this: a checkpointed block that is computed again, by whomever."""
    # the compiler cannot ask, and what it computes again it does not write again
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


@contextmanager
def averages_kept(block: nn.Module) -> Iterator[None]:
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
