"""Who decides which keys a query sees: a predictor, chance, what lies near, or attention itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qna.adapters._parts.attention import projected
from qna.adapters._parts.chosen_keys import largest
from qna.adapters.sparsifiner import SparseAttention
from qna.adapters.sparsifiner.predictor import MaskPredictor

CHOOSERS = PREDICTED, RANDOM, LOCAL = "predicted", "random", "local"


class RandomMask(MaskPredictor):
    """Any keys, drawn anew for every query from a generator of its own."""

    generator: torch.Generator

    def choose(
        self,
        q: Tensor,
        k: Tensor,
        count: int,
        active: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """As the predictor's."""
        shape = (*q.shape[:2], q.shape[2] - self.prefix, k.shape[2])
        return largest(torch.rand(shape, generator=self.generator), count)


class LocalMask(MaskPredictor):
    """The keys that lie nearest on the grid, a token before the image's nearer than any."""

    columns: int

    def choose(
        self,
        q: Tensor,
        k: Tensor,
        count: int,
        active: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """As the predictor's."""
        places = torch.arange(k.shape[2] - self.prefix)
        at = torch.stack([places // self.columns, places % self.columns], -1).to(q.dtype)
        # of places that are as far the first stands nearer
        far = torch.cdist(at, at) + 1e-4 * places
        near = torch.cat([far.new_full((len(far), self.prefix), -1.0), far], 1)
        chosen = near.topk(count, largest=False).indices
        return chosen.expand(*q.shape[:2], -1, -1)


def choosing(network: Any, chooser: str, seed: int) -> Any:
    """The network, with a Sparsifiner in it, whose keys `chooser` chooses; in place."""
    for layer, attention in enumerate(sparse(network)):
        predictor: Any = attention.mask_predictor
        if chooser == RANDOM:
            predictor.__class__ = RandomMask
            predictor.generator = torch.Generator().manual_seed(seed + layer)
        elif chooser == LOCAL:
            predictor.__class__ = LocalMask
            predictor.columns = network.patch_embed.grid_size[1]
    return network


def sparse(network: nn.Module) -> list[SparseAttention]:
    """The attention of each block."""
    return [module for module in network.modules() if isinstance(module, SparseAttention)]


@torch.no_grad()
def recall(network: nn.Module, images: Tensor, counts: dict[float, int]) -> dict[float, float]:
    """The part of each image token's largest weights that the network's chooser names, in per cent.

    Args:
        network: with all keys seen, so that weights are those of dense attention.
        images: that it reads.
        counts: name of a figure -> keys that a query is to see.

    Returns:
        by the same names, the mean over blocks, heads, images and image tokens.
    """
    found: dict[float, list[float]] = {rate: [] for rate in counts}

    def compare(attention: SparseAttention, given: tuple[Tensor, ...]) -> None:
        q, k, _ = projected(attention, given[0])
        weights = (q * attention.scale @ k.transpose(-2, -1)).softmax(-1)[:, :, attention.prefix :]
        assert attention.mask_predictor is not None
        for rate, count in counts.items():
            right = torch.zeros_like(weights).scatter_(-1, weights.topk(count).indices, 1.0)
            named = attention.mask_predictor.choose(q, k, count)
            found[rate].append(100 * float(right.gather(-1, named).mean()))

    hooks = [attention.register_forward_pre_hook(compare) for attention in sparse(network)]
    try:
        network.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {rate: sum(values) / len(values) for rate, values in found.items()}
