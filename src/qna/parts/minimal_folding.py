"""From one form of `MinimalAttention` to one of fewer matrices, exactly wherever algebra allows it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna.parts.minimal_attention import COLLAPSED, FULL, NONE, SYMMETRIC, MinimalAttention

# products of fp32 weights are sums of some hundred terms of which each is known to 6e-8
ROUNDING = 1e-5


@torch.no_grad()
def fold_into(target: MinimalAttention, source: MinimalAttention) -> list[str]:
    """Give `target` the weights of `source`, or products of them, in place.

    Products are taken in double precision. What `target` computes is then what `source` does, to rounding,
    unless a sentence says that something begins anew, or values that were there are dropped.

    Args:
        target: as many channels and heads; any form, with biases wherever `source` has some that matter.
        source: full, or in the target's form, for queries and keys and for values alike.

    Returns:
        two sentences: what became of queries and keys, and of values and output.

    Raises:
        InvalidInput: other sizes, or a form that holds less than the target's.
    """
    for name in ("dim", "num_heads"):
        if getattr(target, name) != getattr(source, name):
            raise InvalidInput(
                f"{name} must be that of the source, {getattr(source, name)}, got {getattr(target, name)}"
            )
    return [_fold_scores(target, source), _fold_values(target, source)]


def _fold_scores(target: MinimalAttention, source: MinimalAttention) -> str:
    if target.qk_form == source.qk_form:
        if target.qk_form == SYMMETRIC:
            target.triangle.copy_(source.triangle)
        else:
            for name in ("q", "k") if target.qk_form == FULL else ("qk",):
                _fill(getattr(target, name), getattr(source, name).weight, getattr(source, name).bias)
        return "queries and keys kept"
    if source.qk_form == SYMMETRIC or target.qk_form == FULL:
        raise InvalidInput(
            f"queries and keys that are {source.qk_form} cannot be made {target.qk_form}; fold full ones"
        )
    weight, bias = _collapsed_scores(source)
    if target.qk_form == COLLAPSED:
        _fill(target.qk, weight.flatten(0, 1), bias.flatten())
        return "queries and keys folded"
    triangles = None if bias.is_meta or bias.any() else _triangles(weight, target.head_dim)
    if triangles is None:
        return "queries and keys new, as their products are not symmetric"
    rows, columns = torch.tril_indices(target.head_dim, target.head_dim, device=triangles.device)
    target.triangle.copy_(triangles[:, rows, columns])
    return "queries and keys folded"


def _fold_values(target: MinimalAttention, source: MinimalAttention) -> str:
    if target.value_form == NONE:
        return "values and output " + ("kept" if source.value_form == NONE else "dropped")
    if target.value_form == source.value_form:
        for name in ("value", "out") if target.value_form == FULL else ("out",):
            _fill(getattr(target, name), getattr(source, name).weight, getattr(source, name).bias)
        return "values and output kept"
    if source.value_form != FULL:
        raise InvalidInput(
            f"values that are {source.value_form} cannot be made {target.value_form}; fold full ones"
        )
    h, d = source.num_heads, source.head_dim
    value, out = source.value.weight.double(), source.out.weight.double()
    # (C, heads, d) by (heads, d, C)
    weight = torch.einsum("ohd,hdi->ohi", out.unflatten(1, (h, d)), value.unflatten(0, (h, d)))
    bias = out @ _bias(source.value) + _bias(source.out)
    _fill(target.out, weight.flatten(1), bias)
    return "values and output folded"


def _collapsed_scores(source: MinimalAttention) -> tuple[Tensor, Tensor]:
    """W^T (heads, C of the key, C of the query) and b (heads, C of the key), in double precision."""
    h, c = source.num_heads, source.dim
    if source.qk_form == COLLAPSED:
        return source.qk.weight.double().unflatten(0, (h, c)), _bias(source.qk).unflatten(0, (h, c))
    heads = (h, source.head_dim)
    query, key = (m.weight.double().unflatten(0, heads) for m in (source.q, source.k))
    # of b_k nothing is left but what all keys of a query have alike
    bias = torch.einsum("hdk,hd->hk", key, _bias(source.q).unflatten(0, heads))
    return torch.einsum("hdk,hdq->hkq", key, query), bias


def _triangles(weight: Tensor, d: int) -> Tensor | None:
    """T of each head with ``T T^T`` equal to its weight (C, C); None where there are none."""
    found = []
    for h, matrix in enumerate(weight):
        own = matrix[h * d : (h + 1) * d, h * d : (h + 1) * d]
        size = matrix.abs().max()
        elsewhere = matrix.clone()
        elsewhere[h * d : (h + 1) * d, h * d : (h + 1) * d] = 0
        if max(elsewhere.abs().max(), (own - own.T).abs().max()) > ROUNDING * size:
            return None
        values, vectors = torch.linalg.eigh((own + own.T) / 2)
        if values[0] < -ROUNDING * size:
            return None
        root = vectors * values.clamp_min(0).sqrt()
        # R^T R is root root^T
        found.append(torch.linalg.qr(root.T).R.T)
    return torch.stack(found)


def _bias(layer: nn.Linear) -> Tensor:
    return layer.weight.new_zeros(layer.out_features).double() if layer.bias is None else layer.bias.double()


def _fill(layer: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    if layer.bias is None and bias is not None and not bias.is_meta and bias.any():
        raise InvalidInput("what is folded has biases; make the target with bias=True")
    layer.weight.copy_(weight)
    if layer.bias is not None:
        layer.bias.zero_() if bias is None else layer.bias.copy_(bias)
