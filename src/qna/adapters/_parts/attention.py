"""timm's attention in steps, for adapters that need something from between them.

Attention that an adapter has changed has methods of its own for the steps that it does otherwise.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from qna.parts.attend import attend


def projected(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, heads, N, head_dim) of tokens (B, N, C), after norms of their own."""
    if hasattr(attention, "projected"):
        return attention.projected(x)
    q, k, v = (
        attention.qkv(x).unflatten(-1, (3, attention.num_heads, attention.head_dim)).permute(2, 0, 3, 1, 4)
    )
    return attention.q_norm(q), attention.k_norm(k), v


def weights_of(attention: Any, q: Tensor, k: Tensor) -> Tensor:
    """The softmax of queries to keys (B, heads, N, M), after dropout in training."""
    return attention.attn_drop((q * attention.scale @ k.transpose(-2, -1)).softmax(-1))


def attended(attention: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k) v`` (B, heads, N, head_dim), without the weights where they need not be formed."""
    if attention.training and attention.attn_drop.p:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=attention.attn_drop.p, scale=attention.scale)
    return attend(q, k, v, scale=attention.scale)


def finished(attention: Any, y: Tensor, x: Tensor) -> Tensor:
    """From the heads' output (B, heads, N, head_dim) for tokens `x` to what comes out, (B, N, C)."""
    if hasattr(attention, "finished"):
        return attention.finished(y, x)
    y = attention.norm(y.transpose(1, 2).flatten(2))
    if attention.gate is not None:
        y = y * attention.gate(x).sigmoid()
    return attention.proj_drop(attention.proj(y))
