"""Putting prompts into a plain vision transformer that keeps its weights."""

from __future__ import annotations

from typing import Any

from qna.adapters._parts.prompts import (
    Over,
    PassingBlock,
    PromptedBlock,
    PromptTokens,
    freeze_backbone,
    image_bound,
)
from qna.adapters._parts.vit import blocks_of, without_maps


def put_prompts(
    network: Any,
    adapter: str,
    *,
    count: int,
    deep: bool,
    dropout: float,
    transformed: int = 0,
    over: Over = "both",
) -> list[str]:
    """Freeze `network` and let all tokens see prompts.

    Args:
        network: a plain ViT, changed in place.
        adapter: for errors.
        count: prompts of a block.
        deep: prompts of their own for every block, or of the first that pass through all.
        dropout: of prompts.
        transformed: how many go through a Fourier transform.
        over: what it runs over.

    Returns:
        what is frozen.

    Raises:
        InvalidInput: any other network.
    """
    blocks = blocks_of(network, adapter)
    told, bound = freeze_backbone(network), image_bound(network)

    def prompts(block: Any) -> PromptTokens:
        like = block.attn.qkv.weight
        return PromptTokens(count, like, bound=bound, dropout=dropout, transformed=transformed, over=over)

    if not deep:
        without_maps(network, f"prompts of {adapter} with deep=False are among the tokens of blocks")
    last = len(blocks) - 1
    for i, block in enumerate(blocks):
        if deep:
            network.blocks[i] = PromptedBlock(block, prompts(block))
        elif i in (0, last):
            network.blocks[i] = PassingBlock(
                block,
                network.num_prefix_tokens,
                prompts(block) if i == 0 else None,
                count if i == last else 0,
            )
    return [told]
