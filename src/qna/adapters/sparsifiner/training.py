"""What Sparsifiner's network gives back in the epochs that fit its predictors, and its teacher."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from qna._core.with_losses import WithLosses
from qna.adapters.sparsifiner.attention import SparseAttention
from qna.adapters.sparsifiner.blocks import PrunedBlock, ShorteningBlocks, still_there
from qna.parts.losses import ReturnLosses


class ReconstructionLoss(ReturnLosses):
    """Hands out the mean over layers, and what comes out without a way back: only predictors learn."""

    def __call__(self, network: nn.Module, given: object, output: object) -> object:
        """After a forward pass."""
        found = super().__call__(network, given, output)
        if not isinstance(found, WithLosses):
            return found
        plain = found.output
        still = tuple(t.detach() for t in plain) if isinstance(plain, tuple) else plain.detach()
        return found._replace(output=still)


def make_dense(teacher: nn.Module) -> None:
    """Take the predictors out of a copy, in place."""
    for module in teacher.modules():
        if isinstance(module, SparseAttention):
            module.mask_predictor = None


def whereabouts(tokens: Tensor, network: Any) -> tuple[Tensor | None, Tensor | None]:
    """Which image tokens came out of the blocks, and which of them count; None for all."""
    if isinstance(network.blocks, ShorteningBlocks):
        return network.blocks.places, None
    if any(isinstance(block, PrunedBlock) for block in network.blocks):
        return None, still_there(tokens[:, network.num_prefix_tokens :])
    return None, None
