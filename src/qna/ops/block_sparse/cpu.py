"""Block-sparse attention on the CPU: a fused C++ kernel forward, torch's products of kept blocks backward."""

from __future__ import annotations

import torch
from torch import Tensor

from qna._core.backends import Backend
from qna.ops._shared.compiled import STORAGE, load
from qna.ops.block_sparse.inputs import NAME, blocks
from qna.ops.block_sparse.library import OP

_native, missing = load(__package__)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: Tensor,
    out: Tensor,
    lse: Tensor | None,
    scale: float,
    block: int,
) -> None:
    """Fill `out`, and `lse` where there is one."""
    kept = kept.contiguous()
    numbers = [*q.shape[:2], k.shape[1], q.shape[2], q.shape[3], v.shape[3], block]
    for t in (q, k, v, out):
        numbers += [t.data_ptr(), *t.stride()]
    numbers += [kept.data_ptr(), 0 if lse is None else lse.data_ptr()]
    try:
        _native.forward(STORAGE[q.dtype], torch.get_num_threads(), scale, numbers)
    except MemoryError:
        raise MemoryError(
            f"the CPU kernel of {NAME} found no memory for a block; use smaller blocks, or fewer threads "
            "(torch.set_num_threads)"
        ) from None


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: Tensor,
    out: Tensor,
    lse: Tensor,
    grads: tuple[Tensor, Tensor, Tensor],
    scale: float,
    block: int,
    wanted: bool,
) -> tuple[()]:
    """Fill the gradients of q, k and v: a row of blocks after the other, over the keys that it keeps.

    Shares are made again from the log-sum-exp; what is held beside the gradients is one row's shares, and the
    gradients of one head's keys and values in the type of arithmetic.
    """
    exact, shared = lse.dtype, q.shape[1] // k.shape[1]
    grad_q, grad_k, grad_v = grads
    length = q.shape[-2]
    starts = range(0, length, block)
    hidden = torch.ones(min(block, length), min(block, length), dtype=torch.bool, device=q.device).triu(1)
    within = torch.arange(length, device=q.device) // block
    kept = kept & torch.ones(blocks(length, block), blocks(length, block), dtype=torch.bool).tril()
    for b in range(q.shape[0]):
        for g in range(k.shape[1]):
            keys, values = k[b, g], v[b, g]
            sum_k, sum_v = (torch.zeros(t.shape, dtype=exact) for t in (keys, values))
            for head in range(g * shared, (g + 1) * shared):
                for row, start in enumerate(starts):
                    rows = slice(start, min(start + block, length))
                    places = kept[b, head, row][within].nonzero()[:, 0]
                    if not len(places):
                        grad_q[b, head, rows] = 0
                        continue
                    query, up = q[b, head, rows].to(exact), grad[b, head, rows].to(exact)
                    key, value = keys[places].to(exact), values[places].to(exact)
                    shares = (query * scale @ key.T - lse[b, head, rows, None]).exp()
                    if kept[b, head, row, row]:
                        # the block's own keys are the last
                        n = len(query)
                        shares[:, -n:].masked_fill_(hidden[:n, :n], 0.0)
                    drop = (up * out[b, head, rows].to(exact)).sum(-1, keepdim=True)
                    slopes = shares * (up @ value.T - drop) * scale
                    grad_q[b, head, rows] = (slopes @ key).to(q.dtype)
                    sum_k.index_add_(0, places, slopes.T @ query)
                    sum_v.index_add_(0, places, shares.T @ up)
            grad_k[b, g], grad_v[b, g] = sum_k.to(k.dtype), sum_v.to(v.dtype)
    return ()


BACKEND = Backend(
    "cpu",
    OP.register("cpu", forward, backward, device="cpu", keeps=True),
    device="cpu",
    dtypes=tuple(STORAGE),
    opaque=True,
    missing=missing,
)
