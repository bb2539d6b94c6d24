"""timm's plain vision transformers, as adapters see them."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from torch import nn

from qna._core.errors import InvalidInput
from qna.adapters._parts.around import AroundAttention, AroundBlock
from qna.models.timm_entry import timm


def blocks_of(network: nn.Module, adapter: str, *, also: tuple[type, ...] = ()) -> list[Any]:
    """The blocks of a plain ViT of timm: pre-norm attention, then an MLP, on tokens (B, N, C).

    Each has norm1, attn (qkv, q_norm, k_norm, attn_drop, norm, proj, proj_drop), ls1, drop_path1, norm2, mlp,
    ls2 and drop_path2, and the network ``num_prefix_tokens`` of its class, distillation and register tokens.
    Those that another adapter has changed are among them: `Adapter.beside` has said that they may be.

    Args:
        network: of which they are.
        adapter: its name, for the error.
        also: kinds of attention that may stand beside timm's own.

    Raises:
        InvalidInput: any other network.
    """
    kinds = timm.models.vision_transformer
    blocks = list(getattr(network, "blocks", ()))
    if not isinstance(network, kinds.VisionTransformer) or not blocks:
        raise InvalidInput(
            f"{adapter} works on timm's plain vision transformers (vit_*, deit_*), "
            f"not on {type(network).__name__}"
        )
    for i, block in enumerate(blocks):
        if type(block) is kinds.Block or isinstance(block, AroundBlock):
            plain = type(block.attn) in (kinds.Attention, *also) or isinstance(block.attn, AroundAttention)
        else:
            plain = False
        if not plain:
            inside = type(getattr(block, "attn", block)).__name__
            raise InvalidInput(
                f"{adapter} works on blocks of pre-norm attention and MLP; "
                f"block {i} is {type(block).__name__} with {inside}"
            )
    return blocks


def chosen_blocks(layers: tuple[int, ...] | None, depth: int, adapter: str) -> tuple[int, ...]:
    """Indices of blocks, from 0, in order; None means all.

    Raises:
        InvalidInput: one that is not there, or named twice.
    """
    if layers is None:
        return tuple(range(depth))
    odd = [i for i in layers if type(i) is not int or not 0 <= i < depth]
    if odd or len(set(layers)) != len(layers):
        raise InvalidInput(
            f"{adapter}: layers must be different block numbers from 0 to {depth - 1}, got {layers}"
        )
    return tuple(sorted(layers))


def without_maps(network: Any, why: str) -> None:
    """Let `forward_intermediates` give tokens alone, where blocks hand on some that have no place on a map.

    Args:
        network: changed in place.
        why: for the error, a sentence without its end.
    """
    network.forward_intermediates = partial(_tokens_alone, network, why)


def _tokens_alone(network: Any, why: str, /, *given: Any, **named: Any) -> Any:
    method = type(network).forward_intermediates
    asked = inspect.signature(method).bind(network, *given, **named)
    asked.apply_defaults()
    if asked.arguments["output_fmt"] != "NLC":
        raise InvalidInput(f"{why}: forward_intermediates gives them with output_fmt='NLC'")
    return method(network, *given, **named)
