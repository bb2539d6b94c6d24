"""Random calls of the op, each from a seed, small enough for a mask of all pairs."""

import math
import random

from qna.ops.neighborhood.cases import NeighborhoodCase
from qna.ops.neighborhood.geometry import BORDERS

LARGEST = 12


def call(seed):
    """A case of 1 to 3 axes, with kernels even and odd, strides, dilations, causal axes and all borders."""
    draw = random.Random(seed)
    while True:
        case = _case(draw, seed)
        spans = [
            (n + 2 * k * d, k) if case.options["border"] == "zero" else (n, k)
            for n, k, d in zip(case.space, case.kernel, case.options["dilation"], strict=True)
        ]
        pairs = math.prod(case.space) * math.prod(n for n, _ in spans)
        if pairs <= 60_000 and math.prod(case.kernel) <= 150:
            return case


def _case(draw, seed):
    axes = draw.choice((1, 2, 2, 3))
    border = draw.choice((*BORDERS, "clamp"))
    space, kernel, stride, dilation, causal = ([] for _ in range(5))
    for _ in range(axes):
        n = draw.randint(1, LARGEST)
        d = draw.choice((1, 1, *range(1, min(n, 4) + 1)))
        k = draw.randint(1, n // d if border == "clamp" else 9)
        for numbers, number in zip(
            (space, kernel, stride, dilation, causal),
            (n, k, draw.choice((1, draw.randint(1, k))), d, draw.random() < 0.3),
            strict=True,
        ):
            numbers.append(number)
    options = {
        "stride": tuple(stride),
        "dilation": tuple(dilation),
        "is_causal": tuple(causal),
        "border": border,
    }
    return NeighborhoodCase(
        f"drawn-{seed}",
        tuple(space),
        tuple(kernel),
        batch=draw.choice((1, 2)),
        heads=draw.randint(1, 3),
        head_dim=draw.randint(1, 20),
        value_dim=draw.choice((None, draw.randint(1, 20))),
        biased=draw.random() < 0.6,
        extra=draw.choice((0, 0, draw.randint(1, 12))),
        masked=draw.random() < 0.4,
        options=options,
    )
