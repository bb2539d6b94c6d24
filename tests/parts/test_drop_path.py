"""Stochastic depth: what is kept on average, and rates that would leave nothing."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.seeds import seeded
from qna.parts.drop_path import DropPath


def test_whole_images_are_left_out_and_the_mean_stays():
    x = torch.ones(20_000, 2)
    with seeded(0):
        y = DropPath(0.3)(x)
    assert torch.equal(y[:, 0], y[:, 1])
    assert set(y.unique().tolist()) == {0.0, (x[0, 0] / (1 - 0.3)).item()}
    # the standard error is sqrt(0.3 / 0.7 / 20000) = 0.0046
    assert abs(y.mean().item() - 1) < 5 * 0.0046
    assert torch.equal(DropPath(0.3).eval()(x), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0, float("nan")])
def test_rates_that_leave_nothing_are_refused(rate):
    with pytest.raises(InvalidInput, match="DropPath: rate must be at least 0 and below 1"):
        DropPath(rate)
