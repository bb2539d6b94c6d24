"""The linear map by way of a convolution is `F.linear`: values, gradients, and where it may not be taken."""

import pytest
import torch
import torch.nn.functional as F

from qna.parts.linear import Linear, linear

NAMES = ("x", "weight", "bias")


def both(x, weight, bias):
    """(ours, torch's in fp64), each as output and gradients."""
    results = []
    for call, dtype in ((linear, x.dtype), (F.linear, torch.float64)):
        inputs = [t.detach().to(dtype).requires_grad_() for t in (x, weight, bias)]
        y = call(*inputs)
        results.append((y, *torch.autograd.grad(y, inputs, torch.cos(y.detach()))))
    return results


@pytest.mark.parametrize(
    "shape",
    [
        (1,),
        (0, 5),
        (3, 7, 7),
        (16, 8),
        (2, 12, 12),
        (1, 37, 41),
        (127, 1),
        (131, 1),
        (1, 14, 14),
        (4, 4, 4, 4),
    ],
    ids=str,
)
@pytest.mark.parametrize(("dim", "out"), [(1, 3), (24, 40), (33, 7)])
def test_values_and_gradients_are_those_of_the_plain_product(shape, dim, out):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(*shape, dim), torch.randn(out, dim), torch.randn(out)
    ours, plain = both(x, weight, bias)
    positions = max(x.numel() // dim, 1)
    for name, a, b, terms in zip(("y", *NAMES), ours, plain, (dim, out, positions, positions), strict=True):
        assert a.shape == b.shape, name
        size = b.abs().max().item() if b.numel() else 0
        # a sum of n terms of size s is off by less than n eps s; the cotangent by the output's error
        error = 4 * torch.finfo(torch.float32).eps * (terms + dim) * max(size, dim**0.5)
        torch.testing.assert_close(a.double(), b, rtol=0, atol=error, msg=lambda m, name=name: f"{name}: {m}")


def test_a_large_map_is_convolved_in_place_and_a_small_one_is_not():
    weight = torch.randn(8, 4)
    for positions, name in ((16 * 16, "convolution"), (64, "mm")):
        with torch.profiler.profile() as profile:
            linear(torch.randn(positions, 4), weight)
        assert any(name in event.name for event in profile.events()), positions


def test_strided_maps_and_other_dtypes():
    weight = torch.randn(8, 4, dtype=torch.float64)
    x = torch.randn(4, 20, 16, dtype=torch.float64).transpose(1, 2)
    x = x[..., ::5]
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=0, atol=0)
    torch.testing.assert_close(linear(x.float(), weight.float()), F.linear(x, weight).float())


def test_autocast_is_obeyed():
    layer = Linear(16, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(4, 16, 16, 16)).dtype == torch.bfloat16


def test_a_compiled_graph_holds_a_product():
    program = torch.export.export(Linear(16, 8), (torch.randn(4, 16, 16, 16),))
    names = {str(node.target) for node in program.graph.nodes}
    assert any("linear" in name for name in names)
    assert not any("conv" in name for name in names)


def test_second_derivatives():
    x = torch.randn(16, 8, 3, requires_grad=True)
    weight = torch.randn(2, 3, requires_grad=True)
    first = torch.autograd.grad(linear(x, weight).square().sum(), x, create_graph=True)[0]
    (second,) = torch.autograd.grad(first.sum(), weight)
    other = torch.autograd.grad(F.linear(x, weight).square().sum(), x, create_graph=True)[0]
    torch.testing.assert_close(second, torch.autograd.grad(other.sum(), weight)[0])
