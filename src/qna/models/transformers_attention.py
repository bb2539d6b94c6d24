"""ProxyAttn inside models of transformers: the only door to its registry of attention functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput, require

# with it transformers can be imported beside any torchvision
from qna.models import timm_entry
from qna.parts.block_choice import ChoosesBlocks, attend_chosen
from qna.parts.proxy_blocks import ProxyBlocks

__all__ = ["NAME", "register_proxy_attention", "timm_entry"]

NAME = "qna_proxy"


def register_proxy_attention(selector: ProxyBlocks | None = None, name: str = NAME) -> str:
    """Let models of transformers read prompts by chosen blocks: ``attn_implementation=name``.

    A call whose queries are all positions of the sequence is a prompt, and attends the blocks that the
    selector keeps for each sequence without its padding; padded positions give 0. All other calls, steps of
    generation and prompts that come in parts or into a cache of fixed size, attend densely by transformers'
    own "sdpa".

    Args:
        selector: which blocks; None for `ProxyBlocks` with its defaults.
        name: for the registry; another registration of the same name replaces the first.

    Returns:
        `name`.

    Raises:
        MissingExtra: transformers is not installed.
    """
    transformers = require("transformers", extra="dense", purpose="register_proxy_attention")
    transformers.AttentionInterface.register(name, _attention(name, selector or ProxyBlocks()))
    transformers.AttentionMaskInterface.register(name, _mask(name))
    return name


def _attention(name: str, selector: ChoosesBlocks) -> Callable[..., tuple[Tensor, None]]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *mask: Any, **others: Any
    ) -> tuple[Tensor, None]:
        (attention_mask,) = mask or (others.pop("attention_mask"),)
        scaling, length = others.pop("scaling", None), query.shape[2]
        if length != key.shape[2] or length == 1:
            return sdpa_attention_forward(
                module, query, key, value, attention_mask, scaling=scaling, **others
            )
        _refuse(name, module, attention_mask, others)
        if scaling is not None:
            # the selector and the op divide by the root of the head's channels
            query = query * (scaling * query.shape[-1] ** 0.5)
        parts = []
        for start, stop, rows in _sequences(name, attention_mask, query):
            q, k, v = (t[rows, :, start:stop] for t in (query, key, value))
            attended = attend_chosen(q, k, v, selector)
            parts.append(nn.functional.pad(attended, (0, 0, start, length - stop)))
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return attended.transpose(1, 2).contiguous(), None

    return attend


def _sequences(name: str, mask: Tensor | None, query: Tensor) -> list[tuple[int, int, slice]]:
    """Where sequences begin and end: one entry for all where none is padded, else one for each.

    Raises:
        InvalidInput: one has padding in its middle, or nothing else.
    """
    batch, length = query.shape[0], query.shape[2]
    if mask is None or bool(mask.all()):
        return [(0, length, slice(None))]
    found = []
    for i in range(batch):
        places = mask[i].nonzero()[:, 0]
        if not len(places) or int(places[-1] - places[0]) + 1 != len(places):
            raise InvalidInput(
                f"{name} takes sequences padded at either end, and sequence {i} has {len(places)} of "
                f'{length} positions with gaps between them; load the model with attn_implementation="sdpa"'
            )
        found.append((int(places[0]), int(places[-1]) + 1, slice(i, i + 1)))
    return found


def _refuse(name: str, module: nn.Module, mask: Tensor | None, others: dict[str, Any]) -> None:
    """What is no plain causal prompt of inference.

    Raises:
        InvalidInput: in one sentence.
    """
    instead = 'load the model with attn_implementation="sdpa" or "eager"'
    if module.training:
        raise InvalidInput(f"{name} reads prompts and trains nothing; call model.eval(), or {instead}")
    if mask is not None and mask.ndim != 2:
        raise InvalidInput(
            f"{name} takes a mask of padding (B, N), got one of pairs {tuple(mask.shape)}; {instead}"
        )
    named = ("sliding_window", "softcap", "s_aux", "position_bias")
    strange = [word for word in named if others.get(word) is not None]
    if strange or others.get("is_causal") is False or not getattr(module, "is_causal", True):
        told = ", ".join(strange) or "attention that is not causal"
        raise InvalidInput(f"{name} is plain causal attention and has no {told}; {instead}")


def _mask(name: str) -> Callable[..., Tensor | None]:
    from transformers.masking_utils import causal_mask_function, sdpa_mask

    def mask(
        batch_size: int,
        q_length: int,
        kv_length: int,
        *offsets: Any,
        mask_function: Callable[..., Any] = causal_mask_function,
        attention_mask: Tensor | None = None,
        **others: Any,
    ) -> Tensor | None:
        """Of a prompt the padding (B, N), so that no pair is written down; else what "sdpa" gets."""
        if q_length != kv_length or q_length == 1:
            given: dict[str, Any] = {
                "mask_function": mask_function,
                "attention_mask": attention_mask,
                **others,
            }
            return sdpa_mask(batch_size, q_length, kv_length, *offsets, **given)
        if mask_function is not causal_mask_function:
            raise InvalidInput(
                f"{name} is plain causal attention, and this model masks pairs in another way (windows, "
                'packed sequences); load it with attn_implementation="sdpa"'
            )
        return attention_mask

    return mask
