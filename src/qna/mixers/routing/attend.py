"""Attention of each region's positions to those of the regions that it was routed to.

Keys and values are gathered for a few regions at a time, forward and backward, so that what is held beside
the maps has a fixed size. The plain form gathers all of them at once: ``topk`` copies of keys and values, and
a score for every query and key that it meets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
import torch.nn.functional as F
from torch import Tensor

from qna.ops._shared.flops import count

# numbers gathered at a time: on a CPU few enough for its caches, elsewhere enough to keep the device busy
_AT_A_TIME = {"cpu": 2**19}
_ELSEWHERE = 2**24


def attend_routed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    routes: Tensor,
    *,
    num_heads: int,
    scale: float,
    hidden: Tensor | None = None,
) -> Tensor:
    """Attend the regions that `routes` names.

    Args:
        query: (N, n, C), n positions of each of N regions, those of all maps one after another.
        key: the same.
        value: the same.
        routes: int64 (N, topk), rows of `key` that a region attends.
        num_heads: divides C.
        scale: of the products.
        hidden: bool (R, n), positions that are no keys, the same in every R regions; None for none.

    Returns:
        (N, n, C).
    """
    given = (query, key, value, routes, num_heads, scale, hidden)
    return _attend_plainly(*given) if _wants_plain_torch() else _attend(*given)


def gathered_at_once(regions: int, tokens: int, topk: int, dim: int, *, device: str = "cpu") -> int:
    """Elements of keys and values that `attend_routed` gathers at a time without a gradient."""
    per_region = 2 * topk * tokens * dim
    return per_region * min(regions, max(1, _limit(device) // per_region))


def _wants_plain_torch() -> bool:
    """Whether a graph is recorded for others to read, or a transform is at work that knows no ops of ours."""
    return (
        torch.compiler.is_exporting()
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]
        or fwAD._current_level >= 0
    )


def _attend_plainly(  # noqa: PLR0917 - as the op
    query: Tensor,
    key: Tensor,
    value: Tensor,
    routes: Tensor,
    num_heads: int,
    scale: float,
    hidden: Tensor | None,
) -> Tensor:
    """The definition: all keys and values gathered, all scores formed; can be differentiated repeatedly."""
    shares = routed_shares(query, key, routes, num_heads=num_heads, scale=scale, hidden=hidden)
    return _joined(shares @ _by_heads(value[routes].flatten(1, 2), num_heads))


def routed_shares(
    query: Tensor,
    key: Tensor,
    routes: Tensor,
    *,
    num_heads: int,
    scale: float,
    hidden: Tensor | None = None,
) -> Tensor:
    """The softmax of `attend_routed`: (N, num_heads, n, topk * n)."""
    gathered = _by_heads(key[routes].flatten(1, 2), num_heads)
    scores = (_by_heads(query, num_heads) * scale) @ gathered.transpose(-1, -2)
    if hidden is not None:
        scores = scores.masked_fill(_of_keys(hidden, routes), float("-inf"))
    return scores.softmax(-1)


@torch.library.custom_op("qna::routed_attention", mutates_args=())
def _attend(  # noqa: PLR0917 - tensors of an op with a gradient are positional
    query: Tensor,
    key: Tensor,
    value: Tensor,
    routes: Tensor,
    num_heads: int,
    scale: float,
    hidden: Tensor | None,
) -> Tensor:
    result = query.new_empty(query.shape)
    for some, gather in _chunks(query, routes):
        mask = None
        if hidden is not None:
            mask = query.new_zeros(()).masked_fill(_of_keys(hidden, routes[some]), float("-inf"))
        queries, keys, values = (_by_heads(t, num_heads) for t in (query[some], gather(key), gather(value)))
        result[some] = _joined(
            F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
        )
    return result


@torch.library.custom_op("qna::routed_attention_backward", mutates_args=())
def _attend_backward(  # noqa: PLR0917 - as the op
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    routes: Tensor,
    num_heads: int,
    scale: float,
    hidden: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    # kernels that are called by name take what they are given for dense in its last axis
    grad, query, key, value = (t if t.stride(-1) == 1 else t.contiguous() for t in (grad, query, key, value))
    of_query = query.new_empty(query.shape)
    # a region is chosen many times: its sums are not to be rounded each time
    wide = torch.promote_types(query.dtype, torch.float32)
    of_key, of_value = (torch.zeros(t.shape, dtype=wide, device=t.device) for t in (key, value))
    tokens, dim = query.shape[1:]
    differentiate = _fused_backward if query.device.type == "cpu" else _plain_backward
    for some, gather in _chunks(query, routes):
        g, q, k, v = (_by_heads(t, num_heads) for t in (grad[some], query[some], gather(key), gather(value)))
        masked = None if hidden is None else _of_keys(hidden, routes[some])
        grads = differentiate(g, q, k, v, scale, masked)
        of_query[some] = _joined(grads[0])
        chosen = routes[some].flatten()
        for total, found in zip((of_key, of_value), grads[1:], strict=True):
            total.index_add_(0, chosen, _joined(found).view(-1, tokens, dim).to(wide))
    return of_query, of_key.to(key.dtype), of_value.to(value.dtype)


def _fused_backward(  # noqa: PLR0917 - as `_plain_backward`
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float, masked: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values (N, h, n, d) by the kernels of torch's SDPA, forward anew."""
    mask = None if masked is None else query.new_zeros(()).masked_fill(masked, float("-inf"))
    options = {"attn_mask": mask, "scale": scale}
    output, normalizer = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, **options
    )
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, query, key, value, output, normalizer, 0.0, False, **options
    )


def _plain_backward(  # noqa: PLR0917 - what a forward was given, in its order
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float, masked: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in products of matrices, where one region's scores are too many some queries at a time."""
    of_query, of_key, of_value = (torch.zeros_like(t) for t in (query, key, value))
    step = max(1, _limit(query.device.type) // max(1, math.prod(key.shape[:3])))
    for first in range(0, query.shape[2], step):
        here = slice(first, first + step)
        queries, grads = query[:, :, here] * scale, grad[:, :, here]
        scores = queries @ key.transpose(-1, -2)
        if masked is not None:
            scores.masked_fill_(masked, float("-inf"))
        shares = scores.softmax(-1)
        of_value += shares.transpose(-1, -2) @ grads
        received = grads @ value.transpose(-1, -2)
        of_scores = torch.ops.aten._softmax_backward_data(received, shares, -1, shares.dtype)
        of_query[:, :, here] = of_scores @ key * scale
        of_key += of_scores.transpose(-1, -2) @ queries
    return of_query, of_key, of_value


def _chunks(query: Tensor, routes: Tensor) -> Iterator[tuple[slice, Any]]:
    """Slices of regions, and what gathers (regions, topk * n, C) of keys or values for each."""
    regions, tokens, dim = query.shape
    keys = routes.shape[1] * tokens
    step = max(1, _limit(query.device.type) // max(1, 2 * keys * dim))
    for first in range(0, regions, step):
        some = slice(first, min(first + step, regions))
        chosen = routes[some].flatten()
        yield some, lambda t, chosen=chosen: t.index_select(0, chosen).view(-1, keys, dim)


def _limit(device: str) -> int:
    return _AT_A_TIME.get(device, _ELSEWHERE)


def _of_keys(hidden: Tensor, routes: Tensor) -> Tensor:
    """Of each gathered key whether it is hidden: (regions, 1, 1, topk * n)."""
    return hidden[routes % len(hidden)].flatten(1)[:, None, None]


def _by_heads(t: Tensor, num_heads: int) -> Tensor:
    """(N, n, C) -> (N, h, n, d)."""
    return t.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _joined(t: Tensor) -> Tensor:
    """(N, h, n, d) -> (N, n, C)."""
    return t.transpose(1, 2).flatten(2)


@_attend.register_fake
def _(query, *others):
    return query.new_empty(query.shape)


@_attend_backward.register_fake
def _(grad, query, key, value, *others):
    return tuple(t.new_empty(t.shape) for t in (query, key, value))


def _setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, num_heads, scale, hidden = inputs
    ctx.save_for_backward(*tensors, hidden)
    ctx.num_heads, ctx.scale = num_heads, scale


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    query, key, value, routes, hidden = ctx.saved_tensors
    others = (routes, ctx.num_heads, ctx.scale, hidden)
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        # the gradient is to be differentiated again, which plain torch can be
        maps = (query, key, value)
        wanted = [t for t in maps if t.requires_grad]
        found = iter(torch.autograd.grad(_attend_plainly(*maps, *others), wanted, grad, create_graph=True))
        grads = tuple(next(found) if t.requires_grad else None for t in maps)
    else:
        grads = _attend_backward(grad, query, key, value, *others)
    return (*grads, None, None, None, None)


_attend.register_autograd(_differentiate, setup_context=_setup)


def _macs(query: Any, routes: Any) -> int:
    """Multiply-adds of scores and sums."""
    (regions, tokens, dim), topk = query.shape, routes.shape[1]
    return 2 * regions * tokens * topk * tokens * dim


def _flops(query, key, value, routes, *others, out_val=None, **_) -> int:
    return 2 * _macs(query, routes)


def _backward_flops(grad, query, key, value, routes, *others, out_val=None, **_) -> int:
    # scores once more, and two products for each of the two
    return 5 * _macs(query, routes)


count(torch.ops.qna.routed_attention, _flops)
count(torch.ops.qna.routed_attention_backward, _backward_flops)
