"""Attention in which each query sees some keys only: which those are, and what it gives."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.parts.attend import attend, transformed


def largest(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of each row, in no certain order; which of equal ones is open too.

    Args:
        scores: (..., N), of which no gradient is asked.
        count: at most N.

    Returns:
        int64 (..., count).
    """
    if count == scores.shape[-1] or not plain_cpu(scores) or not scores.numel():
        return scores.topk(count, -1, sorted=False).indices
    return _by_partition(scores, count)


def _by_partition(scores: Tensor, count: int) -> Tensor:
    """`largest` by a vectorised selection: torch's own goes through a list of pairs, five times as long."""
    import numpy as np

    rows = scores.reshape(-1, scores.shape[-1])
    if rows.dtype not in (torch.float32, torch.float64):
        # numpy knows no bfloat16, and takes its time with halves
        rows = rows.float()
    width, found = rows.shape[-1], rows.numpy()
    least = np.partition(found, width - count, -1)[:, width - count, None]
    taken = found >= least
    flat = np.flatnonzero(taken)
    if flat.size != len(found) * count or np.isnan(least).any():
        # rows with equal numbers around the last that is taken, or with some that cannot be compared
        odd = taken.sum(-1) != count
        taken[odd] = False
        some = torch.from_numpy(found[odd]).topk(count, -1, sorted=False).indices
        taken[np.flatnonzero(odd)[:, None], some.numpy()] = True
        flat = np.flatnonzero(taken)
    return torch.from_numpy(flat % width).view(*scores.shape[:-1], count)


def attend_chosen(query: Tensor, key: Tensor, value: Tensor, chosen: Tensor, scale: float) -> Tensor:
    """``softmax(scale query key^T) value`` over the chosen keys of each query, without dropout.

    Where no gradient is asked on a CPU only the products of chosen keys are computed, n k (d + e) a head for
    k of them; elsewhere all n m (d + e), of which the others are masked.

    Args:
        query: (B, heads, n, d).
        key: (B, heads, m, d).
        value: (B, heads, m, e).
        chosen: int64 (B, heads, n, k), indices of keys, none twice.
        scale: of the products.

    Returns:
        (B, heads, n, e).
    """
    if computes_chosen(query, key, value):
        return only_chosen(query, key, value, chosen, scale)
    return all_masked(query, key, value, chosen, scale)


def computes_chosen(*tensors: Tensor) -> bool:
    """Whether `attend_chosen` computes the chosen products alone for these queries, keys and values."""
    real = all(t.dtype in (torch.float32, torch.float64) for t in tensors)
    asked = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return real and not asked and plain_cpu(tensors[0]) and tensors[0].numel() > 0


def all_masked(query: Tensor, key: Tensor, value: Tensor, chosen: Tensor, scale: float) -> Tensor:
    """`attend_chosen` through all products."""
    shape = (*chosen.shape[:-1], key.shape[2])
    added = query.new_full(shape, float("-inf")).scatter_(-1, chosen, 0.0)
    return attend(query, key, value, added, scale=scale)


def only_chosen(query: Tensor, key: Tensor, value: Tensor, chosen: Tensor, scale: float) -> Tensor:
    """`attend_chosen` through the chosen products alone, of fp32 or fp64 on a CPU and without gradients."""
    batch, heads, n, k = chosen.shape
    rows, keys = batch * heads * n, batch * heads * key.shape[2]
    # keys of all heads one after another
    first = torch.arange(0, keys, key.shape[2]).view(batch, heads, 1, 1)
    places = (chosen + first).view(rows, k)
    with warnings.catch_warnings():
        # torch says of every sparse matrix, once, that the layout is young
        warnings.simplefilter("ignore", UserWarning)
        pattern = torch.sparse_csr_tensor(
            torch.arange(0, rows * k + 1, k),
            places.view(-1),
            query.new_zeros(rows * k),
            size=(rows, keys),
            check_invariants=False,
        )
        products = torch.sparse.sampled_addmm(
            pattern, query.reshape(rows, -1), key.reshape(keys, -1).t(), beta=0.0, alpha=scale
        ).values()
    weights = products.view(rows, k).softmax(-1)
    found = F.embedding_bag(places, value.reshape(keys, -1), mode="sum", per_sample_weights=weights)
    return found.view(batch, heads, n, -1)


def plain_cpu(t: Any) -> bool:
    """Whether `t` holds numbers on a CPU that are neither traced nor transformed."""
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return (
        t.device.type == "cpu" and type(t) in (Tensor, torch.nn.Parameter) and not (traced or transformed())
    )
