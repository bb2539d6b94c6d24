"""Plain torch, the oracle: a mask of all pairs. Any dtype and device, twice differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

# the type in which half precision is computed
_AT_LEAST = torch.float32


def attend(q: Tensor, k: Tensor, v: Tensor, kept: Tensor, scale: float, block: int) -> Tensor:
    """As `block_sparse_attention`; it forms h N^2 scores."""
    exact = torch.promote_types(q.dtype, _AT_LEAST)
    shared = q.shape[1] // k.shape[1]
    keys, values = (t.to(exact).repeat_interleave(shared, 1) for t in (k, v))
    seen = pairs_seen(kept, q.shape[-2], block)
    scores = ((q.to(exact) * scale) @ keys.transpose(-1, -2)).masked_fill(~seen, -torch.inf)
    # queries that see nothing have no softmax
    nothing = ~seen.any(-1, keepdim=True)
    shares = scores.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)
    return (shares @ values).to(v.dtype)


def pairs_seen(kept: Tensor, length: int, block: int) -> Tensor:
    """What queries see of keys: bool (B, h, N, N)."""
    places = torch.arange(length, device=kept.device)
    within = places // block
    return kept[..., within, :][..., within] & (places <= places[:, None])
