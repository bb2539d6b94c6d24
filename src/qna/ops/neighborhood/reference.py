"""Neighbourhood attention in plain torch: any dtype, device and size, twice differentiable. The oracle.

A walk over the taps of a window, axis by axis. Where windows move with their query over a border, the maps at
a tap's keys are views of one map that is padded with zeros; elsewhere one `index_select` per axis finds them.
Nothing is held but for the tap at hand, and by autograd; half precision is computed in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.ops.neighborhood.geometry import WindowAxis

_NOT_ATTENDED = float("-inf")


class _Tap(NamedTuple):
    """One tap of all windows along one axis."""

    key: Tensor  # (L,), its position, moved into the map
    offset: Tensor  # (L,), row of the bias
    real: Tensor | None  # (L,), whether it is attended and in the map; None for everywhere
    seen: Tensor | None  # (L,), whether it is attended, in the map or as a key of zeros
    shift: int | None = None  # where the keys of all queries begin in a padded axis; None where it is not


class _Keys(NamedTuple):
    """Keys of the map; and after a walk along the axes, what every query finds at one tap of its window.

    At a tap that is not attended, or not in the map, key and value are zero and nothing is hidden.
    """

    k: Any  # (B, *space, heads, d), None where no scores are made
    v: Any  # (B, *space, heads, e), None where no values are summed
    hidden: Tensor | None  # (B, *space, 1), whether a mask forbids it
    bias: Tensor | None  # (*offsets, heads); after the walk (*space, heads)
    seen: Tensor | None = None  # (*space, 1), whether the tap is attended; None for everywhere


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    extra_keys: Tensor | None,
    extra_values: Tensor | None,
    key_mask: Tensor | None,
    scale: float,
    axes: Sequence[WindowAxis],
    *,
    return_lse: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """As `qna.ops.neighborhood_attention`, of what it has checked."""
    given = v.dtype
    q, k, v, bias = _wide(q, k, v, bias)
    q = q * scale
    keys = _keys(k, v, bias, key_mask)
    extra: list[tuple[Tensor, ...]] = []
    if extra_keys is not None and extra_values is not None:
        # no more at once than a head has channels: their scores are no larger than the map
        chunk = q.shape[-1]
        extra = list(zip(*(t.to(q.dtype).split(chunk, 1) for t in (extra_keys, extra_values)), strict=True))

    # detached: the softmax does not depend on the maximum that is subtracted
    top = q.new_full(q.shape[:-1], _NOT_ATTENDED)
    for at_tap in _walk(axes, _Keys(*(None if t is None else t.detach() for t in keys))._replace(v=None)):
        top = torch.maximum(top, _scores(q.detach(), at_tap))
    for of_extra, _ in extra:
        top = torch.maximum(top, _extra_scores(q.detach(), of_extra.detach()).amax(-1))
    top = torch.where(top == _NOT_ATTENDED, 0, top)  # a query that attends nothing

    total, out = torch.zeros_like(top), v.new_zeros(())
    for at_tap in _walk(axes, keys):
        share = (_scores(q, at_tap) - top).exp()
        total, out = total + share, out + share[..., None] * at_tap.v
    for of_extra, values in extra:
        share = (_extra_scores(q, of_extra) - top[..., None]).exp()
        total = total + share.sum(-1)
        out = out + torch.einsum("b...hm,bmhe->b...he", share, values)
    nothing = total == 0
    total = torch.where(nothing, 1, total)
    out = (out / total[..., None]).to(given)
    return (out, torch.where(nothing, _NOT_ATTENDED, top + total.log())) if return_lse else out


def scores(
    q: Tensor,
    k: Tensor,
    bias: Tensor | None,
    key_mask: Tensor | None,
    scale: float,
    axes: Sequence[WindowAxis],
) -> Tensor:
    """Scores of all taps, (B, *space, heads, taps); as `qna.ops.neighborhood_qk`."""
    given = q.dtype
    q, k, bias = _wide(q, k, bias)
    q = q * scale
    taps = [_scores(q, at_tap) for at_tap in _walk(axes, _keys(k, None, bias, key_mask))]
    return torch.stack(taps, -1).to(given)


def aggregate(weights: Tensor, v: Tensor, scale: float, axes: Sequence[WindowAxis]) -> Tensor:
    """Values summed with weights (B, *space, heads, taps); as `qna.ops.neighborhood_av`, times `scale`."""
    given = v.dtype
    weights, v = _wide(weights, v)
    out = v.new_zeros(())
    for weight, at_tap in zip(weights.unbind(-1), _walk(axes, _keys(None, v)), strict=True):
        share = weight if at_tap.seen is None else torch.where(at_tap.seen, weight, 0)
        out = out + share[..., None] * at_tap.v
    return (out if scale == 1 else out * scale).to(given)


def _wide(*tensors: Tensor | None) -> list:
    """In the dtype of the arithmetic: that of the first, but at least fp32."""
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)  # pyright: ignore[reportOptionalMemberAccess]
    return [None if t is None else t.to(dtype) for t in tensors]


def _keys(
    k: Tensor | None, v: Tensor | None, bias: Tensor | None = None, key_mask: Tensor | None = None
) -> _Keys:
    """With zeros where the mask hides, so that nothing there matters, not even NaN."""
    if bias is not None:
        bias = bias.movedim(0, -1)
    if key_mask is None:
        return _Keys(k, v, None, bias)
    hidden = ~key_mask[..., None]
    k, v = (None if t is None else t.masked_fill(hidden[..., None], 0) for t in (k, v))
    return _Keys(k, v, hidden, bias)


def _scores(q: Tensor, at_tap: _Keys) -> Tensor:
    """(B, *space, heads), of queries that are scaled already."""
    score = (q * at_tap.k).sum(-1)
    if at_tap.bias is not None:
        score = score + at_tap.bias
    if at_tap.seen is not None:
        score = torch.where(at_tap.seen, score, _NOT_ATTENDED)
    if at_tap.hidden is not None:
        score = torch.where(at_tap.hidden, _NOT_ATTENDED, score)
    return score


def _extra_scores(q: Tensor, extra_keys: Tensor) -> Tensor:
    return torch.einsum("b...hd,bmhd->b...hm", q, extra_keys)


def _walk(axes: Sequence[WindowAxis], keys: _Keys) -> Iterator[_Keys]:
    """Every tap of the axes, those of the last axis fastest."""
    margins = [n for axis in reversed(axes) for n in (_margins(axis) or (0, 0))]
    if any(margins):
        k, v = (None if t is None else F.pad(t, (0, 0, 0, 0, *margins)) for t in keys[:2])
        hidden = None if keys.hidden is None else F.pad(keys.hidden, (0, 0, *margins))
        keys = keys._replace(k=k, v=v, hidden=hidden)
    device = next(t for t in keys if t is not None).device
    # once, not for every tap of the axes before: a graph would hold them as often
    yield from _walk_from(0, [list(_taps(axis, device)) for axis in axes], keys)


def _margins(axis: WindowAxis) -> tuple[int, int] | None:
    """Positions that windows hang over start and end of an axis, where each lies alike about its query.

    None where they do not, or where they hang over by more than the map.
    """
    # a recorder of graphs for any size would compare the order in memory of views with sizes
    if axis.border == "clamp" or axis.stride > 1 or type(axis.size) is not int:
        return None
    before = (axis.kernel - 1 if axis.causal else axis.kernel // 2) * axis.dilation
    after = (axis.kernel - 1) * axis.dilation - before
    # windows far beyond the map would need more memory than the map
    return (before, after) if max(before, after) <= axis.size else None


def _walk_from(number: int, axes: Sequence[Sequence[_Tap]], keys: _Keys) -> Iterator[_Keys]:
    """Every tap of the axes from `number` on, of which all taps are given."""
    if number == len(axes):
        yield keys
        return
    for tap in axes[number]:
        k, v, hidden = (None if t is None else _at_key(t, number + 1, tap) for t in keys[:3])
        bias = None if keys.bias is None else keys.bias.index_select(number, tap.offset)
        for at_tap in _walk_from(number + 1, axes, _Keys(k, v, hidden, bias)):
            yield at_tap._replace(seen=_both(tap.seen, at_tap.seen, len(axes) - number))


def _taps(axis: WindowAxis, device: torch.device) -> Iterator[_Tap]:
    queries = torch.arange(axis.size, device=device)
    starts = axis.starts(queries)
    counts = axis.counts(queries, starts)
    padded = _margins(axis) is not None
    for t in range(axis.kernel):
        key = starts + t * axis.dilation
        # of a tap that is not attended any row
        row = ((key - queries) // axis.dilation + axis.kernel - 1).clamp(0, 2 * axis.kernel - 2)
        if axis.whole:
            yield _Tap(key, row, None, None)
            continue
        within, inside = t < counts, (key >= 0) & (key < axis.size)
        real = within & inside
        seen = within if axis.border == "zero" else real
        shift = t * axis.dilation if padded else None
        yield _Tap(key.clamp(0, axis.size - 1), row, real, seen, shift)


def _at_key(t: Tensor, dim: int, tap: _Tap) -> Tensor:
    if tap.shift is not None:
        return t.narrow(dim, tap.shift, len(tap.key))
    t = t.index_select(dim, tap.key)
    return t if tap.real is None else t.masked_fill(~_along(tap.real, t.ndim - dim), 0)


def _along(mask: Tensor, axes: int) -> Tensor:
    """A mask of one axis, of the first of the last `axes`."""
    return mask.view(-1, *(1,) * (axes - 1))


def _both(outer: Tensor | None, inner: Tensor | None, axes: int) -> Tensor | None:
    """Seen along this axis and those behind it, (*their sizes, 1)."""
    if outer is None:
        return inner
    outer = _along(outer, axes + 1)
    return outer if inner is None else outer & inner
