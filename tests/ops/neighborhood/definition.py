"""Neighbourhood attention by its definition: as loops, and as dense attention under a mask of all pairs."""

import itertools
import math

import torch
import torch.nn.functional as F


def taps(i, axis):
    """Positions of the taps that query `i` may see, in the map or not."""
    r, m = i % axis.dilation, i // axis.dilation
    length = len(range(r, axis.size, axis.dilation))
    k, s = axis.kernel, axis.stride
    causal_start = min(m // s * s + s - 1, length - 1) - (k - 1)
    start = causal_start if axis.causal else m // s * s + s // 2 - k // 2
    if axis.border == "clamp":
        start = max(min(start, length - k), 0)
    return [r + j * axis.dilation for j in range(start, m + 1 if axis.causal else start + k)]


def attended(i, axis):
    """Of these the positions that the query attends, each with the row of the bias."""
    found = [(j, (j - i) // axis.dilation + axis.kernel - 1) for j in taps(i, axis)]
    return [(j, row) for j, row in found if axis.border == "zero" or 0 <= j < axis.size]


def scale_of(q, scale=None):
    return q.shape[-1] ** -0.5 if scale is None else scale


def attend_by_loops(q, k, v, axes, *, bias=None, extra_keys=None, extra_values=None, key_mask=None):
    """One query and head at a time; (output, log-sum-exp)."""
    out, lse = torch.zeros_like(v), q.new_full(q.shape[:-1], -math.inf)
    space = [range(axis.size) for axis in axes]
    for b, h, i in itertools.product(range(len(q)), range(q.shape[-2]), itertools.product(*space)):
        scores, values = [], []
        for window in itertools.product(*map(attended, i, axes)):
            j, rows = zip(*window, strict=True)
            inside = all(0 <= a < axis.size for a, axis in zip(j, axes, strict=True))
            if inside and key_mask is not None and not key_mask[(b, *j)]:
                continue
            key, value = (k[(b, *j, h)], v[(b, *j, h)]) if inside else (0 * q[(b, *i, h)], 0 * v[(b, *i, h)])
            of_bias = 0 if bias is None else bias[(h, *rows)]
            scores.append(scale_of(q) * (q[(b, *i, h)] * key).sum() + of_bias)
            values.append(value)
        for m in range(0 if extra_keys is None else extra_keys.shape[1]):
            scores.append(scale_of(q) * (q[(b, *i, h)] * extra_keys[b, m, h]).sum())
            values.append(extra_values[b, m, h])
        if scores:
            scores = torch.stack(scores)
            lse[(b, *i, h)] = scores.logsumexp(0)
            out[(b, *i, h)] = (scores.softmax(0)[:, None] * torch.stack(values)).sum(0)
    return out, lse


class Dense:
    """All pairs of a query and a key, the map padded by as much as windows hang over it.

    Attributes:
        seen: bool (queries, padded keys).
        rows: entry of the flattened bias for each pair, 0 where it is not seen.
        real: bool (padded keys,), in the map.
    """

    def __init__(self, axes):
        self.axes, self.margins = axes, []
        seen, rows, real = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.int64), None
        for axis in axes:
            of_axis = [attended(i, axis) for i in range(axis.size)]
            found = [j for pairs in of_axis for j, _ in pairs]
            before, after = max(-min(found), 0), max(max(found) - axis.size + 1, 0)
            self.margins = [before, after, *self.margins]
            size = (axis.size, before + axis.size + after)
            s, r = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.int64)
            for i, pairs in enumerate(of_axis):
                for j, row in pairs:
                    s[i, j + before], r[i, j + before] = True, row
            inside = F.pad(torch.ones(axis.size, dtype=torch.bool), [before, after])
            # every pair of this axis beside every pair of those before it
            seen = (seen[:, None, :, None] & s[None, :, None]).flatten(2).flatten(0, 1)
            rows = (
                (rows[:, None, :, None] * (2 * axis.kernel - 1) + r[None, :, None]).flatten(2).flatten(0, 1)
            )
            real = inside if real is None else (real[:, None] & inside).flatten()
        self.seen, self.rows, self.real = seen, rows.where(seen, 0), real

    def padded(self, t):
        """(B, *space, heads, c) as (B, heads, padded keys, c)."""
        return F.pad(t, [0, 0, 0, 0, *self.margins]).flatten(1, -3).transpose(1, 2)

    def scores(self, q, k, bias=None, key_mask=None, scale=None):
        """(B, heads, queries, padded keys)."""
        scores = scale_of(q, scale) * q.flatten(1, -3).transpose(1, 2) @ self.padded(k).transpose(-1, -2)
        if bias is not None:
            scores = scores + bias.flatten(1)[:, self.rows]
        seen = self.seen
        if key_mask is not None:
            allowed = F.pad(key_mask[..., None, None], [0, 0, 0, 0, *self.margins]).flatten(1)
            seen = seen & (allowed | ~self.real)[:, None, None]
        return scores.masked_fill(~seen, -math.inf)

    def attend(self, q, k, v, *, bias=None, extra_keys=None, extra_values=None, key_mask=None, scale=None):
        """Output and log-sum-exp, in the shapes of the op."""
        scores, values = self.scores(q, k, bias, key_mask, scale), self.padded(v)
        if extra_keys is not None:
            more = scale_of(q, scale) * q.flatten(1, -3).transpose(1, 2) @ extra_keys.permute(0, 2, 3, 1)
            scores = torch.cat([scores, more], -1)
            values = torch.cat([values, extra_values.transpose(1, 2)], 2)
        empty = (scores == -math.inf).all(-1, keepdim=True)
        shares = scores.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 0)
        out = (shares @ values).transpose(1, 2).reshape(*q.shape[:-1], -1)
        return out, scores.logsumexp(-1).transpose(1, 2).reshape(q.shape[:-1])
