"""Sums of an activation over pairs of a map's positions, without a map for each pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qna.parts.attend import transformed
from qna.parts.open_size import is_open
from qna.parts.plain import is_plain

Offsets = Sequence[tuple[int, ...]]
# what has no state, draws nothing and knows one number at a time: it may be asked piece by piece, and again
ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardswish, nn.Hardtanh, nn.Identity),
)
# numbers of a piece: a few pieces of fp32 fit into a core's own cache, and a call costs less than its work
PIECE = 1 << 17


def is_taken(query: Tensor, key: Tensor, message: nn.Module) -> bool:
    """Whether `PairSums` may take these: plain activations, and nothing that records or transforms."""
    return (
        # a compiler fuses the taps itself
        not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not any(map(is_open, query.shape))
        and not transformed()
        and query.dtype == key.dtype
        and type(message) in ACTIVATIONS
        and is_plain(message, type(message))
    )


class PairSums(torch.autograd.Function):
    """``y_u = sum_(o) w_(u + o) act(q_u + k_(u + o))`` over offsets o, where u + o lies in the map.

    Piece by piece of the map, so that a piece stays in the cache for all offsets, and for the gradient again
    from q and k: it holds nothing else. The gradient of the gradient goes tap by tap through autograd.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - torch calls it by position
        ctx: Any,
        query: Tensor,
        key: Tensor,
        message: nn.Module,
        offsets: Offsets,
        weight: Tensor | None,
        plain: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """(B, *space, C) twice, weights (1, *space, 1), and the same sum in plain torch -> (B, *space, C)."""
        ctx.save_for_backward(query, key, weight)
        ctx.message, ctx.offsets, ctx.plain = message, offsets, plain
        dtype = torch.promote_types(query.dtype, torch.float32)
        total = torch.zeros(query.shape, dtype=dtype, device=query.device)
        for here, there in _pieces(query, offsets):
            messages = message(query[here] + key[there])
            total[here].add_(messages if weight is None else messages.mul_(weight[(slice(None), *there[1:])]))
        return total.to(query.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Those of q and k."""
        (gradient,) = gradients
        query, key, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            summed = ctx.plain(query, key)
            of_query, of_key = torch.autograd.grad(summed, (query, key), gradient, create_graph=True)
            return of_query, of_key, None, None, None, None
        dtype = torch.promote_types(query.dtype, torch.float32)
        of_query = torch.zeros(query.shape, dtype=dtype, device=query.device)
        of_key = torch.zeros_like(of_query)
        for here, there in _pieces(query, ctx.offsets):
            arrived = gradient[here]
            if weight is not None:
                arrived = arrived * weight[(slice(None), *there[1:])]
            of_pairs = _derivative(ctx.message, query[here] + key[there], arrived)
            of_query[here].add_(of_pairs)
            of_key[there].add_(of_pairs)
        return of_query.to(query.dtype), of_key.to(key.dtype), None, None, None, None


def _derivative(message: nn.Module, pairs: Tensor, arrived: Tensor) -> Tensor:
    if type(message) is nn.ReLU:
        return torch.ops.aten.threshold_backward(arrived, pairs, 0)
    with torch.enable_grad():
        pairs = pairs.requires_grad_()
        # some activations write over what they are given, which a leaf does not allow
        messages = message(pairs.clone() if getattr(message, "inplace", False) else pairs)
        return torch.autograd.grad(messages, pairs, arrived)[0]


def _pieces(like: Tensor, offsets: Offsets) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Parts of the map, and for each offset where it leads from there: pairs of indices (B, *space)."""
    batch, *space = like.shape[:-1]
    if not like.numel():
        return
    # other devices have no such cache, and start each call at a price
    rows, images = space[0], batch
    if like.device.type == "cpu":
        row = math.prod(space[1:]) * like.shape[-1]
        rows = min(space[0], max(1, PIECE // row))
        images = min(batch, max(1, PIECE // (row * space[0])))
    for image in range(0, batch, images):
        for first in range(0, space[0], rows):
            whole = [(first, min(first + rows, space[0])), *((0, size) for size in space[1:])]
            for offset in offsets:
                inside = [
                    (max(low, -step), min(high, size - step))
                    for (low, high), step, size in zip(whole, offset, space, strict=True)
                ]
                if all(low < high for low, high in inside):
                    of_images = slice(image, image + images)
                    here = (of_images, *(slice(low, high) for low, high in inside))
                    there = (
                        of_images,
                        *(slice(low + o, high + o) for (low, high), o in zip(inside, offset, strict=True)),
                    )
                    yield here, there
