"""Rotary positions are complex products; they know differences of positions alone; offsets go on."""

import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.parts.rotary import Rotary


def x(n=7, d=8):
    return torch.randn(2, 3, n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def definition(t, position, base, scale):
    """Pairs as complex numbers, turned by the angle of each."""
    pairs = torch.view_as_complex(t.contiguous().unflatten(-1, (-1, 2)))
    d = t.shape[-1]
    angles = torch.tensor(
        [position / scale / base ** (2 * i / d) for i in range(d // 2)], dtype=torch.float64
    )
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2)


@pytest.mark.parametrize(
    ("base", "scale", "start"), [(10_000.0, 1.0, 0), (100.0, 4.0, 5), (5e5, 1.0, 70_000)]
)
def test_pairs_are_complex_products(base, scale, start):
    rotary = Rotary(8, base, "pairs", scale)
    found = rotary.rotate(x(), rotary.turns_from(start, 7, x()))
    for i in range(7):
        expected = definition(x()[:, :, i], start + i, base, scale)
        # angles themselves are rounded
        assert (found[:, :, i] - expected).abs().max() < 1e-14 * (start + 100)


def test_halves_are_pairs_in_another_order():
    order = torch.arange(8).reshape(2, 4).T.flatten()
    halves, pairs = Rotary(8), Rotary(8, layout="pairs")
    found = halves.rotate(x(), halves.turns_from(3, 7, x()))
    expected = pairs.rotate(x()[..., order], pairs.turns_from(3, 7, x()))
    assert torch.equal(found[..., order], expected)
    assert not torch.allclose(found, pairs.rotate(x(), pairs.turns_from(3, 7, x())))


@pytest.mark.parametrize("layout", ["halves", "pairs"])
def test_products_know_the_difference_alone(layout):
    rotary = Rotary(8, layout=layout)

    def scores(start):
        turns = rotary.turns_from(start, 7, x())
        return rotary.rotate(x(), turns) @ rotary.rotate(x().flip(2), turns).transpose(-1, -2)

    assert (scores(0) - scores(1000)).abs().max() < 1e-9


def test_a_part_of_the_channels():
    rotary = Rotary(4)
    turns = rotary.turns_from(2, 7, x())
    found = rotary.rotate(x(), turns)
    assert torch.equal(found[..., 4:], x()[..., 4:])
    assert torch.equal(found[..., :4], rotary.rotate(x()[..., :4], turns))


def test_angles_are_in_single_precision_at_least():
    half, rotary = x().bfloat16(), Rotary(8)
    turns = rotary.turns_from(100, 7, half)
    assert {t.dtype for t in turns} == {torch.float32}
    found = rotary.rotate(half, turns)
    assert found.dtype == torch.bfloat16
    exact = rotary.rotate(half.double(), rotary.turns_from(100, 7, x()))
    assert (found - exact).abs().max() <= 2**-8 * exact.abs().max()


def test_what_is_refused():
    with pytest.raises(InvalidInput, match="want an even number, got 7"):
        Rotary(7)
    with pytest.raises(UnknownName, match="unknown layout of rotary positions 'half'; did you mean 'halves'"):
        Rotary(8, layout="half")
    with pytest.raises(InvalidInput, match=r"rope scale must be above 0 and finite, got 0"):
        Rotary(8, scale=0)
