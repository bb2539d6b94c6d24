"""Gradient checkpointing of a block: what it computes is not kept but computed again for the gradient."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qna.parts.recompute import averages_kept


def recomputed(block: nn.Module, *inputs: Tensor) -> Any:
    """``block(*inputs)``, computed once more in the backward pass, where batch norms keep their averages."""
    if torch.compiler.is_compiling():
        # what is compiled computes again without writing again
        return checkpoint(block, *inputs, use_reentrant=False)
    return checkpoint(
        block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), averages_kept(block))
    )
