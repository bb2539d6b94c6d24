"""The linear map by way of a convolution is `F.linear`: values, gradients, and where it may not be taken."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qna.parts.linear import apply_linear, linear

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
        assert any(name in event.name for event in profile.events()), positions  # pyright: ignore[reportOptionalIterable]


def test_strided_maps_and_other_dtypes():
    weight = torch.randn(8, 4, dtype=torch.float64)
    x = torch.randn(4, 20, 16, dtype=torch.float64).transpose(1, 2)
    x = x[..., ::5]
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=0, atol=0)
    torch.testing.assert_close(linear(x.float(), weight.float()), F.linear(x, weight).float())


def test_autocast_is_obeyed():
    layer = nn.Linear(16, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert apply_linear(layer, torch.randn(4, 16, 16, 16)).dtype == torch.bfloat16


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.map: nn.Module = nn.Linear(16, 8)

    def forward(self, x):
        return apply_linear(self.map, x)


def test_a_layer_is_convolved_unless_somebody_watches():
    network, x, seen = Mapped(), torch.randn(4, 16, 16, 16), []
    weight, bias = network.map.parameters()
    expected = linear(x, weight, bias)
    assert torch.equal(network(x), expected)
    assert not torch.equal(F.linear(x, weight, bias), expected)  # told by rounding
    network.map.register_forward_hook(lambda module, inputs, output: seen.append(output))
    torch.testing.assert_close(network(x), expected)
    assert len(seen) == 1
    network.map = nn.Identity()
    assert network(x) is x


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_graphs_hold_the_module_and_its_product():
    network, x = Mapped(), torch.randn(4, 16, 16, 16)
    exported = {str(node.target) for node in torch.export.export(network, (x,)).graph.nodes}
    traced = {node.kind() for node in torch.jit.trace(network, x, check_trace=False).inlined_graph.nodes()}  # pyright: ignore[reportAttributeAccessIssue]
    for names in (exported, traced):
        assert any("linear" in name for name in names)
        assert not any("conv" in name for name in names)
    assert "map" in {node.target for node in torch.fx.symbolic_trace(network).graph.nodes}


def test_second_derivatives():
    x = torch.randn(16, 8, 3, requires_grad=True)
    weight = torch.randn(2, 3, requires_grad=True)
    first = torch.autograd.grad(linear(x, weight).square().sum(), x, create_graph=True)[0]
    (second,) = torch.autograd.grad(first.sum(), weight)
    other = torch.autograd.grad(F.linear(x, weight).square().sum(), x, create_graph=True)[0]
    torch.testing.assert_close(second, torch.autograd.grad(other.sum(), weight)[0])
