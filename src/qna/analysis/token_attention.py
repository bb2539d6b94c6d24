"""Attention inside timm's plain vision transformers, read off while they look at images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TokenAttention:
    """The softmax of every block of a transformer whose tokens are the patches of an image.

    Attributes:
        layers: names of the blocks, in order.
        shares: per block, float32 (B, tokens, tokens), mean over heads; rows sum to 1.
        prefix: tokens before those of the patches: class and register tokens.
        size: (H, W) of the patches.
        by_class_token: whether the first token alone goes to the classifier, and not the patches' mean.
    """

    layers: tuple[str, ...]
    shares: tuple[Tensor, ...]
    prefix: int
    size: tuple[int, int]
    by_class_token: bool


@torch.no_grad()
def token_attention(network: nn.Module, images: Tensor) -> TokenAttention | None:
    """What the blocks of `network` attend on `images` (B, C, H, W); None if it is not such a transformer.

    It is one if the blocks in ``network.blocks`` hold an ``attn`` of timm's, whose weights pass through its
    ``attn_drop`` where it is not fused, over all tokens. The network must be in evaluation mode.
    """
    layers = _attentions(network)
    if layers is None:
        return None
    found: dict[str, Tensor] = {}

    def keep(name: str, inputs: tuple[Any, ...]) -> None:
        found[name] = inputs[0].detach().float().mean(1) if inputs[0].ndim == 4 else inputs[0]

    hooks = [
        attention.attn_drop.register_forward_pre_hook(lambda _, inputs, name=name: keep(name, inputs))
        for name, attention in layers.items()
    ]
    fused = {name: attention.fused_attn for name, attention in layers.items()}
    try:
        for attention in layers.values():
            attention.fused_attn = False
        network(images)
    finally:
        for name, attention in layers.items():
            attention.fused_attn = fused[name]
        for hook in hooks:
            hook.remove()
    prefix = getattr(network, "num_prefix_tokens", 0)
    size = _patches(network, images)
    tokens = prefix + size[0] * size[1]
    if len(found) != len(layers) or any(a.shape != (len(images), tokens, tokens) for a in found.values()):
        return None
    by_class_token = prefix > 0 and getattr(network, "global_pool", None) == "token"
    return TokenAttention(tuple(found), tuple(found.values()), prefix, size, by_class_token)


def _attentions(network: nn.Module) -> dict[str, Any] | None:
    blocks = getattr(network, "blocks", None)
    embedding = getattr(network, "patch_embed", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not hasattr(embedding, "patch_size"):
        return None
    layers = {f"blocks.{i}.attn": getattr(block, "attn", None) for i, block in enumerate(blocks)}
    if not layers or not all(hasattr(a, "fused_attn") and hasattr(a, "attn_drop") for a in layers.values()):
        return None
    return layers


def _patches(network: nn.Module, images: Tensor) -> tuple[int, int]:
    patch: Any = network.patch_embed
    height, width = patch.patch_size
    return images.shape[2] // height, images.shape[3] // width
