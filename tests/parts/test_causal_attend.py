"""Causal and banded attention are loops over their definitions, for grouped heads and parts of a sequence."""

import pytest
import torch

from qna.parts import causal_attend
from qna.parts.causal_attend import attend_band, attend_before


def drawn(n, m, *, heads=4, kv_heads=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = ((heads, n, 6), (kv_heads, m, 6), (kv_heads, m, 5))
    return [torch.randn(2, *shape, generator=g, dtype=torch.float64) for shape in shapes]


def definition(query, key, value, sees):
    """Query by query: `sees(i, j)` of places among all keys."""
    n, m = query.shape[2], key.shape[2]
    groups = query.shape[1] // key.shape[1]
    made = query.new_zeros(*query.shape[:3], value.shape[-1])
    for b in range(len(query)):
        for head in range(query.shape[1]):
            for i in range(n):
                met = [j for j in range(m) if j <= i + m - n and sees(i + m - n, j)]
                scores = key[b, head // groups, met] @ query[b, head, i] / query.shape[-1] ** 0.5
                made[b, head, i] = scores.softmax(0) @ value[b, head // groups, met]
    return made


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (7, 7), (3, 7), (6, 7)])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_before(n, m, kv_heads):
    tensors = drawn(n, m, kv_heads=kv_heads)
    expected = definition(*tensors, lambda i, j: True)
    assert (attend_before(*tensors) - expected).abs().max() < 1e-13


def test_before_in_blocks_is_before(monkeypatch):
    tensors = drawn(7, 9)
    expected = attend_before(*tensors)
    monkeypatch.setattr(causal_attend, "_BLOCK", 3)
    assert (attend_before(*tensors) - expected).abs().max() < 1e-13


def test_before_sees_what_it_is_told():
    query, key, value = drawn(4, 7)
    seen = torch.rand(2, 4, 4, 7, generator=torch.Generator().manual_seed(1)) < 0.6
    seen |= torch.eye(7, dtype=torch.bool)[3:]
    found = attend_before(query, key, value, seen)
    for b in range(2):
        for head in range(4):
            one = definition(
                *(t[b : b + 1, h : h + 1] for t, h in ((query, head), (key, head // 2), (value, head // 2))),
                lambda i, j, b=b, head=head: bool(seen[b, head, i - 3, j]),
            )
            assert (found[b, head] - one[0, 0]).abs().max() < 1e-13


@pytest.mark.parametrize("sinks", [0, 1, 3, 40])
@pytest.mark.parametrize("window", [1, 2, 5, 30])
@pytest.mark.parametrize("size", [(1, 9), (11, 11), (8, 11), (11, 12)])
@pytest.mark.parametrize("least", [1, 3, 128])
def test_band(size, window, sinks, least, monkeypatch):
    monkeypatch.setattr(causal_attend, "_LEAST_BAND", least)
    tensors = drawn(*size)
    expected = definition(*tensors, lambda i, j: j > i - window or j < sinks)
    assert (attend_band(*tensors, window=window, sinks=sinks) - expected).abs().max() < 1e-13


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_transforms():
    query, key, value = drawn(5, 7)
    for call in (attend_before, lambda *t: attend_band(*t, window=3, sinks=1)):
        one_by_one = torch.func.vmap(lambda *t, call=call: call(*(x[None] for x in t))[0])(query, key, value)
        assert (one_by_one - call(query, key, value)).abs().max() < 1e-13
