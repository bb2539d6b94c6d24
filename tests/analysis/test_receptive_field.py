import pytest
import timm
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.analysis import receptive_field


def stack():
    """Receptive field 1 + (3-1) + (5-1) * 2 + (3-1) * 2 * 1 = 15 pixels a side, stride 2."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 5, padding=2), nn.Conv2d(4, 4, 3, padding=1)
    )


def test_of_a_linear_conv_stack_it_is_its_analytic_support():
    field = receptive_field(stack(), torch.randn(2, 3, 32, 40), draws=2)
    assert field.map_size == (16, 20)
    # position (8, 10) reads rows 16 - 7 .. 16 + 7 and columns 20 - 7 .. 20 + 7
    expected = torch.zeros(32, 40, dtype=torch.bool)
    expected[9:24, 13:28] = True
    assert torch.equal(field.strength > 0, expected)
    assert field.strength.max() == 1
    assert field.centre == (17.0, 21.0)


def test_one_convolution_gives_the_size_of_its_weights():
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 16, 5, padding=2)
    field = receptive_field(convolution, torch.randn(1, 2, 9, 9), draws=400)
    expected = convolution.weight.square().sum((0, 1)).sqrt()
    # the mean of 400 draws of sums of 32 squares with random signs: off by some 1 / sqrt(400)
    torch.testing.assert_close(
        field.strength[2:7, 2:7], (expected / expected.max()).detach(), rtol=0.15, atol=0.02
    )


def test_sides_of_squares_by_hand():
    network = nn.AvgPool2d(8)  # every pixel of a cell alike
    field = receptive_field(network, torch.zeros(1, 1, 16, 16))
    assert field.strength.sum() == 64
    assert field.centre == (12.0, 12.0)
    # of 64 equal pixels, the 4 x 4 around the centre are a quarter
    assert (field.side(0.25), field.side(1.0)) == (4, 8)


@pytest.mark.parametrize("name", ["qna_vit_nano_16", "test_vit", "test_convnext", "test_efficientnet"])
def test_timms_networks_are_left_as_they_were(name):
    network = timm.create_model(name).train()
    field = receptive_field(network, torch.randn(1, 3, 160, 160), draws=1)
    assert field.strength.shape == (160, 160)
    assert field.strength.max() == 1
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_a_network_without_a_map_is_refused():
    with pytest.raises(InvalidInput, match=r"Sequential gives no map of positions, got \(1, 10\)"):
        receptive_field(nn.Sequential(nn.Flatten(), nn.Linear(48, 10)), torch.zeros(1, 3, 4, 4))
    with pytest.raises(InvalidInput, match="draws must be at least 1, got 0"):
        receptive_field(stack(), torch.zeros(1, 3, 8, 8), draws=0)


def test_no_square_is_larger_than_the_image():
    """The centre of a map of 2 x 2 lies at 12 of 16 pixels, where a square of 24 about it would hold all."""
    network = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(1, 1, 3, padding=1, bias=False))
    nn.init.ones_(network[1].weight)
    field = receptive_field(network, torch.zeros(1, 1, 16, 16))
    assert field.centre == (12.0, 12.0)
    assert torch.equal(field.strength, torch.ones(16, 16))
    # up to 8, a square about the centre; from there on one in the lower right corner
    assert [field.side(n * n / 256) for n in (4, 8, 9, 15, 16)] == [4, 8, 9, 15, 16]


def test_along_a_short_side_a_square_has_all_of_it():
    field = receptive_field(nn.Identity(), torch.zeros(1, 1, 4, 12))
    assert field.side(1.0) == 1
    even = type(field)(torch.ones(4, 12), (2.0, 6.0), (1, 1))
    # all four rows of 2, of 6 and of 12 columns
    assert [even.side(4 * n / 48) for n in (4, 6, 12)] == [4, 6, 12]
