"""Spectral gating: convolution by a kernel of the map's size, identities, other sizes."""

import cmath

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.mixers import SpectralGating2d
from qna.mixers.spectral.products import gate_by_products

SIZES = [(4, 6), (5, 7), (4, 7), (5, 6), (1, 1), (1, 2), (2, 1)]
# float64: transforms and sums of some tens of terms
CLOSE = {"rtol": 0, "atol": 64 * torch.finfo(torch.float64).eps}


def layer(size, dim=3):
    torch.manual_seed(0)
    mixer = SpectralGating2d(dim, map_size=size).double()
    torch.nn.init.normal_(mixer.weight)
    return mixer


def a_map(size, dim=3):
    return torch.randn(2, *size, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def circular(x, kernel):
    """The circular convolution, position by position of the kernel."""
    y = torch.zeros_like(x)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            y += kernel[i, j] * x.roll((i, j), (1, 2))
    return y


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("learned", [None, (3, 5), (4, 4), (8, 12)])
def test_is_a_circular_convolution(size, learned):
    mixer, x = layer(learned or size), a_map(size)
    kernel = torch.fft.irfft2(mixer.filters(*size), s=size, dim=(0, 1))
    torch.testing.assert_close(mixer(x), circular(x, kernel), **CLOSE)


@pytest.mark.parametrize("size", [*SIZES, (31, 20)])
def test_products_of_matrices_gate_as_transforms_do(size):
    mixer, x = layer((4, 6)), a_map(size)
    torch.testing.assert_close(gate_by_products(x, mixer.filters), mixer(x), **CLOSE)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("learned", [(4, 6), (5, 7)])
def test_filters_of_one_are_the_identity_at_any_size(size, learned):
    mixer, x = layer(learned), a_map(size)
    with torch.no_grad():
        mixer.weight.copy_(torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(mixer(x), x, **CLOSE)


@pytest.mark.parametrize("size", SIZES)
def test_filters_at_the_learned_size_are_the_weights(size):
    mixer = layer(size)
    assert torch.equal(torch.view_as_real(mixer.filters(*size)), mixer.weight)


@pytest.mark.parametrize("learned", [(4, 6), (5, 7), (4, 7), (1, 1)])
@pytest.mark.parametrize("size", [(8, 12), (7, 5), (3, 4), (1, 2)])
def test_resized_filters_interpolate_the_whole_plane(learned, size):
    """A loop over the plane of the kernel that acts: linear between its frequencies, around both circles."""
    mixer = layer(learned, dim=1)
    kernel = torch.fft.irfft2(mixer.filters(*learned), s=learned, dim=(0, 1))[..., 0]

    def response(m, n):
        return sum(
            kernel[i, j].item() * cmath.exp(-2j * cmath.pi * (m * i / learned[0] + n * j / learned[1]))
            for i in range(learned[0])
            for j in range(learned[1])
        )

    found = mixer.filters(*size)[..., 0].detach()
    for k in range(size[0]):
        for q in range(size[1] // 2 + 1):
            at = (k * learned[0] / size[0], q * learned[1] / size[1])
            low, share = [int(a) for a in at], [a % 1 for a in at]
            expected = sum(
                abs(1 - u - share[0]) * abs(1 - v - share[1]) * response(low[0] + u, low[1] + v)
                for u in (0, 1)
                for v in (0, 1)
            )
            assert abs(found[k, q].item() - expected) < 1e-12


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_a_shift_around_the_map_shifts_what_comes_out(size):
    mixer, x = layer((4, 6)), a_map(size)
    torch.testing.assert_close(mixer(x.roll((1, 2), (1, 2))), mixer(x).roll((1, 2), (1, 2)), **CLOSE)


@pytest.mark.parametrize("learned", [(2, 3), (3, 2)])
def test_gradients(learned):
    mixer, x = layer(learned, dim=2), a_map((3, 3), dim=2).requires_grad_()

    def output(x, weight):
        return torch.func.functional_call(mixer, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(output, (x, mixer.weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_transforms_of_half_precision_are_of_single(dtype):
    mixer, x = layer((5, 7)).to(dtype), a_map((5, 7)).to(dtype)
    expected = layer((5, 7)).float()
    expected.load_state_dict(mixer.state_dict())
    assert torch.equal(mixer(x), expected(x.float()).to(dtype))


def test_refuses():
    with pytest.raises(InvalidInput):
        SpectralGating2d(0)
    with pytest.raises(InvalidInput, match="map_size"):
        SpectralGating2d(4, map_size=0)
    with pytest.raises(InvalidInput, match="maps must be of floating point, got int64"):
        SpectralGating2d(4, map_size=2)(torch.ones(1, 2, 2, 4, dtype=torch.int64))
