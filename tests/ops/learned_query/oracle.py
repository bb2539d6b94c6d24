"""Learned-query attention written as loops over its definition."""

import itertools
import math

import torch


def windows(size, kernel, stride=1, padding="same", dilation=1):
    """Yield (output position, [(tap, map position)]) for one map, straight from the contract."""
    n = len(size)
    stride, dilation = ((v,) * n if isinstance(v, int) else v for v in (stride, dilation))
    span = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if padding == "same":
        before = [s // 2 for s in span]
        out = [math.ceil(m / s) for m, s in zip(size, stride, strict=True)]
    else:
        before = [padding] * n
        out = [(m + 2 * padding - s - 1) // t + 1 for m, s, t in zip(size, span, stride, strict=True)]
    for i in itertools.product(*map(range, out)):
        inside = []
        for tap in itertools.product(*map(range, kernel)):
            j = tuple(
                a * s + t * d - b for a, s, t, d, b in zip(i, stride, tap, dilation, before, strict=True)
            )
            if all(0 <= a < m for a, m in zip(j, size, strict=True)):
                inside.append((tap, j))
        yield i, inside


def attend_by_loops(scores, value, bias, weight=None, *, factor=1, **window):
    """The definition, one window, head and query at a time, each softmax by `torch.softmax`."""
    weight = torch.ones_like(bias) if weight is None else weight
    size, kernel = scores.shape[1:-2], bias.shape[:-2]
    factor = (factor,) * len(size) if isinstance(factor, int) else factor
    places = list(windows(size, kernel, **window))
    space = (max(x) + 1 for x in zip(*(i for i, _ in places), strict=True))
    out = value.new_zeros(len(value), *(n * f for n, f in zip(space, factor, strict=True)), *value.shape[-2:])
    for b, (i, inside), h in itertools.product(range(len(value)), places, range(value.shape[-2])):
        for l in range(scores.shape[-2] if inside else 0):
            at, group = [], l // (scores.shape[-2] // math.prod(factor))
            for n, f in zip(reversed(i), reversed(factor), strict=True):
                at, group = [n * f + group % f, *at], group // f
            p = torch.stack([scores[(b, *j, l, h)] + bias[(*tap, l, h)] for tap, j in inside]).softmax(0)
            for share, (tap, j) in zip(p, inside, strict=True):
                out[(b, *at, h)] += weight[(*tap, l, h)] * share * value[(b, *j, h)]
    return out
