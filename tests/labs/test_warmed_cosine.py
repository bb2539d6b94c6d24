"""The learning rate of laboratories: up in a line, down along a cosine, and the same for all groups."""

import math

import pytest
import torch

from qna.labs.warmed_cosine import set_rate


def rates(steps, **told):
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [p]} for p in parameters], lr=1.0)
    found = []
    for step in range(steps):
        set_rate(optimizer, 0.5, step, steps, **told)
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == second
        found.append(first)
    return found


@pytest.mark.parametrize("warm", [0, 1, 4])
def test_it_is_its_formula(warm):
    expected = [
        0.5 * (min(1, (step + 1) / warm) if warm else 1) * (0.5 + 0.5 * math.cos(math.pi * step / 10))
        for step in range(10)
    ]
    assert rates(10, warm=warm) == pytest.approx(expected, rel=1e-15)


def test_without_warm_up_it_begins_at_the_highest():
    assert rates(3)[0] == 0.5
