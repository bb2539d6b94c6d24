"""Who chooses the heads that speak: every token, or nobody."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qna.adapters import MoH
from qna.parts.head_router import HeadRouter

KINDS = BALANCED, FREE, FIXED = "routed", "routed, no balance loss", "fixed"


class FixedHeads(HeadRouter):
    """The first heads speak for all tokens, by gates of their own; the others never do.

    Args:
        dim: channels of the attention's input.
        heads: of the attention.
        speaking: how many of them speak.
    """

    def __init__(self, dim: int, heads: int, speaking: int):
        super().__init__(dim, speaking, shared=speaking, routed=0)
        self.silent = heads - speaking

    def _tell(self, gates: Tensor) -> Tensor:
        return super()._tell(nn.functional.pad(gates, (0, self.silent)))


class AlikeRouter(HeadRouter):
    """All tokens choose the same heads, for timing what is left out then."""

    def _choose(self, p: Tensor) -> Tensor:
        chosen = torch.zeros_like(p)
        chosen[..., : self.routed] = 1
        return chosen


def with_heads(network: Any, kind: str, *, shared: int, speaking: int) -> Any:
    """The network, in place, `speaking` of whose heads speak for a token; of routed ones `shared` for all."""
    if kind != FIXED:
        return MoH(shared, speaking - shared, balance=0.01 if kind == BALANCED else 0.0).apply(network)
    network = MoH(shared, speaking - shared, balance=0.0).apply(network)
    for block in network.blocks:
        old = block.attn.router
        block.attn.router = FixedHeads(old.wg.in_features, old.heads, speaking)
    return network


def all_alike(network: Any) -> Any:
    """The same network, in place, whose tokens choose alike."""
    for block in network.blocks:
        block.attn.router.__class__ = AlikeRouter
    return network
