"""The windows of an axis against the definition, query by query."""

import random

import pytest
import torch

from qna.ops.neighborhood.geometry import BORDERS, window_axes
from tests.ops.neighborhood.definition import taps


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("causal", [False, True])
def test_equals_the_definition(border, causal):
    draw = random.Random(f"{border} {causal}")
    for _ in range(200):
        size, d = draw.randint(1, 12), draw.randint(1, 3)
        if border == "clamp" and d > size:
            continue
        k = draw.randint(1, size // d if border == "clamp" else 9)
        options = {"stride": draw.randint(1, k), "dilation": d, "is_causal": causal, "border": border}
        (axis,) = window_axes("test", (size,), k, **options)
        queries = torch.arange(size)
        starts = axis.starts(queries)
        counts = axis.counts(queries, starts)
        expected = [taps(i, axis) for i in range(size)]
        for i, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
            assert [start + t * d for t in range(count)] == expected[i], axis
            assert i in expected[i], axis
        assert axis.pairs() == sum(0 <= j < size for seen in expected for j in seen), axis
