"""Who decides which tokens stay: the class token's attention, its contrary, or chance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qna.adapters.evit import EViT, ReorganisingBlock

CHOOSERS = ATTENDED, RANDOM, UNATTENDED = "attended", "random", "least-attended"


class RandomBlock(ReorganisingBlock):
    """Any tokens stay, drawn anew for each image from a generator of its own."""

    generator: torch.Generator

    def ranked(self, paid: Tensor) -> Tensor:
        """In an order that has nothing to do with what is paid."""
        return torch.rand(paid.shape, generator=self.generator).argsort(1)


class UnattendedBlock(ReorganisingBlock):
    """Those stay that are attended least."""

    def ranked(self, paid: Tensor) -> Tensor:
        """Ascending."""
        return paid.argsort(dim=1, stable=True)


def reduced(network: nn.Module, chooser: str, adapter: EViT, seed: int) -> nn.Module:
    """The network with `adapter` in it, in place, whose tokens `chooser` ranks."""
    network = adapter.apply(network)
    for block in network.modules():
        if isinstance(block, ReorganisingBlock) and chooser != ATTENDED:
            block.__class__ = RandomBlock if chooser == RANDOM else UnattendedBlock
            if isinstance(block, RandomBlock):
                block.generator = torch.Generator().manual_seed(seed)
    return network
