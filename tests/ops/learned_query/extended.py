"""Learned-query attention and its gradients in extended precision, with the magnitudes of what is summed."""

import itertools
from typing import NamedTuple

import numpy as np

REAL = np.longdouble


class Call(NamedTuple):
    """One batch item: N positions, W windows, T taps."""

    scores: np.ndarray  # (N, L, h)
    value: np.ndarray  # (N, h, d)
    bias: np.ndarray  # (T, L, h)
    weight: np.ndarray  # (T, L, h)
    upstream: np.ndarray  # (W, h, d), the output's gradient
    at: np.ndarray  # (W, T), positions, -1 outside the map


class Terms(NamedTuple):
    """Output and gradients, or the sums of the magnitudes of all that is added up in them."""

    out: np.ndarray
    scores: np.ndarray
    value: np.ndarray
    bias: np.ndarray
    weight: np.ndarray


def places(size, kernel, stride, padding, dilation):
    """(windows, taps) numbers of the positions under each window, -1 outside the map."""
    axes = []
    margins = [None] * len(size) if padding == "same" else padding
    for n, k, s, d, p in zip(size, kernel, stride, dilation, margins, strict=True):
        span = d * (k - 1)
        before, out = (span // 2, -(-n // s)) if p is None else (p, (n + 2 * p - span - 1) // s + 1)
        axes.append([[i * s + t * d - before for t in range(k)] for i in range(out)])
    rows = []
    for window in itertools.product(*axes):
        row = []
        for position in itertools.product(*window):
            number = 0
            for j, n in zip(position, size, strict=True):
                number = number * n + j if 0 <= j < n and number >= 0 else -1
            row.append(number)
        rows.append(row)
    return np.array(rows)


def attend(call, least):
    """The definition: (results, magnitudes).

    In the magnitudes no share is less than `least`, and one of e^-g counts g + 1 times: g is rounded too.
    """
    inside = (call.at >= 0)[:, :, None, None]
    scores = np.where(inside, call.scores[call.at], -np.inf)
    share = shares(scores, call.bias)
    some = share * (1 - np.log(np.maximum(share, REAL(2) ** -200))) + least
    sizes = call._replace(value=abs(call.value), weight=abs(call.weight), upstream=abs(call.upstream))
    return _sums(share, call, -1), _sums(np.where(scores > -np.inf, some, 0), sizes, 1)


def shares(scores, bias):
    """The softmax over taps of scores (W, T, L, h) + bias: 0 for -inf, and for windows that see nothing else.

    The sum is kept in two numbers, so that neither hides the other.
    """
    seen = scores > -np.inf
    scores = np.where(seen, scores, 0)
    high = scores + bias
    added = high - scores
    low = np.where(seen, (scores - (high - added)) + (bias - added), 0)
    high = np.where(seen, high, -np.inf)
    top = high.max(1, keepdims=True)
    low_top = np.where(high == top, low, -np.inf).max(1, keepdims=True)
    gap = np.where(seen, (high - np.where(top > -np.inf, top, 0)) + (low - low_top), -np.inf)
    e = np.exp(gap)
    total = e.sum(1, keepdims=True)
    return e / np.where(total > 0, total, 1)


def _sums(share, call, sign):
    """The output and its gradients by the chain rule; with sign 1 and the sizes of a call, magnitudes."""
    seen = call.value[call.at]
    weighted = share * call.weight
    per_head = weighted.sum(2)
    product = np.einsum("whd,wthd->wth", call.upstream, seen)[:, :, None]
    inner = (weighted * product).sum(1, keepdims=True)
    logit = weighted * product + sign * share * inner
    grad_scores, grad_value = np.zeros(call.scores.shape, REAL), np.zeros(call.value.shape, REAL)
    for t in range(call.at.shape[1]):  # under one tap no two windows see the same position
        w = np.flatnonzero(call.at[:, t] >= 0)
        grad_scores[call.at[w, t]] += logit[w, t]
        grad_value[call.at[w, t]] += per_head[w, t, :, None] * call.upstream[w]
    return Terms(
        out=np.einsum("wth,wthd->whd", per_head, seen),
        scores=grad_scores,
        value=grad_value,
        bias=logit.sum(0),
        weight=(share * product).sum(0),
    )
