"""Where a network's attention falls: how much of it each position of each layer's map receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qna.analysis.token_attention import TokenAttention, token_attention


@dataclass(frozen=True)
class AttentionMaps:
    """Attention received in all layers whose maps have the same size.

    Attributes:
        layers: names of the layers, in the order in which they ran.
        size: (H, W) of their maps.
        received: float32 (B, H, W), mean over the layers; 1 where a position gets what an even spread over
            every window would give it.
    """

    layers: tuple[str, ...]
    size: tuple[int, int]
    received: torch.Tensor

    def over_image(self, size: tuple[int, int]) -> torch.Tensor:
        """The maps (B, *size), enlarged bilinearly."""
        return F.interpolate(self.received[:, None], size, mode="bilinear", align_corners=False)[:, 0]


@torch.no_grad()
def attention_received(network: nn.Module, images: torch.Tensor) -> list[AttentionMaps]:
    """Attention received by every position while `network` looks at `images` (B, C, H, W).

    Every module with a method ``attention_received(x) -> (B, H, W)`` takes part. Of timm's plain vision
    transformers the patches' columns of the blocks' attention are summed; a network without any attention
    that can be read gives an empty list. It is run in evaluation mode, its mode is put back afterwards.
    """
    layers = [(name, m) for name, m in network.named_modules() if hasattr(m, "attention_received")]
    found: dict[tuple[int, int], list[tuple[str, torch.Tensor]]] = {}

    def record(name: str, layer: Any, x: torch.Tensor) -> None:
        received = layer.attention_received(x).float()
        found.setdefault((received.shape[1], received.shape[2]), []).append((name, received))

    hooks = [
        module.register_forward_pre_hook(lambda m, inputs, name=name: record(name, m, inputs[0]))
        for name, module in layers
    ]
    training = network.training
    network.eval()
    try:
        if not layers:
            return _of_tokens(token_attention(network, images))
        network(images)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return [
        AttentionMaps(tuple(name for name, _ in group), size, torch.stack([m for _, m in group]).mean(0))
        for size, group in found.items()
    ]


def _of_tokens(tokens: TokenAttention | None) -> list[AttentionMaps]:
    """What each patch gets from all tokens, mean over the blocks, 1 where every token attends evenly."""
    if tokens is None:
        return []
    received = torch.stack([shares.sum(1)[:, tokens.prefix :] for shares in tokens.shares]).mean(0)
    return [AttentionMaps(tokens.layers, tokens.size, received.unflatten(1, tokens.size))]
