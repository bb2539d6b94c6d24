"""Caches that choose by attention received: what they are told, and what they drop."""

from dataclasses import dataclass

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.parts.kv_cache import CachePolicy, CacheShape, KeepWindow, ScoredCache


@dataclass(frozen=True)
class KeepStrongest(CachePolicy):
    """The positions that received most, as a toy of what chooses by scores."""

    count: int

    def empty(self, shape):
        return Strongest(*Strongest.nothing(shape), length=0, count=self.count)

    def kept(self, length):
        return min(length, self.count)


class Strongest(ScoredCache):
    def __init__(self, *tensors, length, count):
        super().__init__(*tensors, length)
        self.count = count

    def chosen(self, positions, received, length):
        if positions.shape[-1] <= self.count:
            return None
        return received.topk(self.count, -1).indices.sort(-1).values

    def made(self, *tensors, length):
        return Strongest(*tensors, length=length, count=self.count)


def drawn(n, seed):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(2, h, n, 6, generator=g, dtype=torch.float64) for h in (4, 2, 2)]


SHAPE = CacheShape(2, 2, 6, 6, torch.device("cpu"), torch.float64)


def loop(parts, count):
    """Head by head and query by query: what is kept is a list of (position, key, value, received)."""
    made = []
    for b in range(2):
        for kv in range(2):
            kept, length, outputs = [], 0, []
            for q, k, v in parts:
                new = [[length + i, k[b, kv, i], v[b, kv, i], 0.0] for i in range(k.shape[2])]
                kept += new
                attended = torch.zeros(2, q.shape[2], 6, dtype=torch.float64)
                for group in range(2):
                    for i in range(q.shape[2]):
                        met = [entry for entry in kept if entry[0] <= length + i]
                        scores = torch.stack([entry[1] @ q[b, 2 * kv + group, i] / 6**0.5 for entry in met])
                        shares = scores.softmax(0)
                        attended[group, i] = sum(s * entry[2] for s, entry in zip(shares, met, strict=True))
                        for s, entry in zip(shares, met, strict=True):
                            entry[3] += float(s)
                length += q.shape[2]
                outputs.append(attended)
                kept = sorted(sorted(kept, key=lambda e: -e[3])[:count], key=lambda e: e[0])
            made.append((torch.cat(outputs, 1), [e[0] for e in kept], [e[3] for e in kept]))
    return made


def test_scores_choose_head_by_head():
    parts = [drawn(n, seed) for seed, n in enumerate((7, 1, 1, 3))]
    cache, outputs = KeepStrongest(4).empty(SHAPE), []
    for part in parts:
        before = [t.clone() for t in (cache.keys, cache.values, cache.positions, cache.received)]
        y, later = cache.attend(*part)
        assert all(map(torch.equal, before, (cache.keys, cache.values, cache.positions, cache.received)))
        cache = later
        outputs.append(y)
    y = torch.cat(outputs, 2).unflatten(1, (2, 2))
    for (attended, positions, received), b, kv in zip(
        loop(parts, 4), (0, 0, 1, 1), (0, 1, 0, 1), strict=True
    ):
        assert (y[b, kv] - attended).abs().max() < 1e-12
        assert cache.positions[b, kv].tolist() == positions
        assert (cache.received[b, kv] - torch.tensor(received)).abs().max() < 1e-6
    # heads differ, and what is dropped is gone
    assert len({tuple(p) for _, p, _ in loop(parts, 4)}) > 1
    assert cache.keys.shape == (2, 2, 4, 6)
    chosen = cache.select(torch.tensor([1]))
    assert torch.equal(chosen.attend(*(t[1:] for t in parts[0]))[0], cache.attend(*parts[0])[0][1:])


def test_bytes():
    cache = KeepStrongest(4).empty(SHAPE)
    for seed, n in enumerate((7, 1)):
        _, cache = cache.attend(*drawn(n, seed))
    # keys and values, positions, what was received
    assert cache.nbytes == 2 * 2 * 4 * (12 * 8 + 8 + 8)


@pytest.mark.parametrize(
    ("arguments", "told"), [((0,), "window must be .* got 0"), ((2, -1), "sinks must be .* got -1")]
)
def test_what_is_refused(arguments, told):
    with pytest.raises(InvalidInput, match=told):
        KeepWindow(*arguments)
