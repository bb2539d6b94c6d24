"""The pooled keys of an aggregated softmax, joined to what was attended in the neighbourhood."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.parts.attend import transformed


def join_pooled(local: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor) -> Tensor:
    """One softmax over two sets of keys, of which the first is attended already.

    To the softmax a set of keys is one key: its score the logarithm of its sum, its value what was attended.

    Args:
        local: what the first set gave, (B, H, W, h, d).
        lse: its log-sum-exp, (B, H, W, h), at least fp32.
        q: queries (B, H, W, h, d), scaled.
        k: the other keys (B, M, h, d).
        v: their values, the same.
        bias: of their scores, behind a column of zeros: (h, H W, 1 + M).

    Returns:
        as `local`.
    """
    space = q.shape[1:3]
    # B, h, H W, d
    q, local = (t.flatten(1, 2).transpose(1, 2) for t in (q, local))
    k, v, lse = k.transpose(1, 2), v.transpose(1, 2), lse.flatten(1, 2).transpose(1, 2)[..., None]
    # a bias with a gradient has no kernel on a CPU: torch then forms the scores too, in more copies
    learned = torch.is_grad_enabled() and bias.requires_grad and q.device.type == "cpu"
    attended, share = (_formed if learned or transformed() else _fused)(lse, q, k, v, bias)
    return (attended + share * local).transpose(1, 2).unflatten(1, space)


def _formed(lse: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """What the keys give, (B, h, N, d), and the share of the one of score `lse`, (B, h, N, 1)."""
    given = v.dtype
    q, k, v, bias = (t.to(lse.dtype) for t in (q, k, v, bias))
    shares = torch.cat([lse, q @ k.transpose(-1, -2)], -1).add_(bias).softmax(-1)
    return (shares[..., 1:] @ v).to(given), shares[..., :1].to(given)


def _fused(lse: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The same by torch's kernels, which form no scores: the first set is a key among the others.

    Queries get two channels more, the score and what is lost of it in half precision, which are 1 in this key
    and 0 in the others; values one, which gives its share.
    """
    d = q.shape[-1]
    # kernels take heads of multiples of 8 channels
    more = (d + 2 + 7) // 8 * 8 - d
    high = lse.to(q.dtype)
    low = (lse - high).to(q.dtype)
    q = torch.cat([q, high, low, q.new_zeros(()).expand(*q.shape[:-1], more - 2)], -1)
    place = torch.arange(d + more, device=q.device) - d
    own = (((place == 0) | (place == 1)).to(q.dtype), (place == 0).to(q.dtype))
    k, v = (
        torch.cat([row.expand(*t.shape[:2], 1, -1), F.pad(t, (0, more))], 2)
        for row, t in zip(own, (k, v), strict=True)
    )
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)[None], scale=1.0)
    return attended[..., :d], attended[..., d : d + 1]
