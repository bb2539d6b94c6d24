"""The linear map is `F.linear` by every route: values, gradients, and where which may be taken."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qna._core.processor import Processor
from qna.parts import product_routes
from qna.parts.linear import apply_linear, linear
from qna.parts.product_routes import CONVOLUTION, INFERENCE, INNER_PRODUCT, LINEAR, TRAINING, MeasuredProduct

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
def test_values_and_gradients_are_those_of_the_plain_product(monkeypatch, shape, dim, out):
    table(monkeypatch, (TRAINING, 256, CONVOLUTION, 2.0))
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


def table(monkeypatch, *rows):
    """Rows (mode, positions, route, gain) of 8 -> 8 channels as all that was measured on this processor."""
    product_routes.route.cache_clear()
    measured = tuple(
        MeasuredProduct("here", mode, n, 8, 8, route, gain, "", "") for mode, n, route, gain in rows
    )
    monkeypatch.setattr(product_routes, "_rows", lambda: measured)


@pytest.fixture(autouse=True)
def forget_routes():
    yield
    product_routes.route.cache_clear()


def ops_of(call):
    """Names of all that ran."""
    with torch.profiler.profile() as profile:
        call()
    return {event.name for event in profile.events()}  # pyright: ignore[reportOptionalIterable]


@pytest.mark.parametrize("route", [LINEAR, CONVOLUTION, INNER_PRODUCT])
def test_a_map_goes_the_way_that_was_fastest_for_the_nearest_shape(monkeypatch, route):
    table(
        monkeypatch,
        (INFERENCE, 256, route, 2.0),
        (TRAINING, 256, CONVOLUTION, 2.0),
        (INFERENCE, 65536, LINEAR, 1),
    )
    called = {LINEAR: "aten::addmm", CONVOLUTION: "aten::conv2d", INNER_PRODUCT: "mkldnn::_linear_pointwise"}
    x, weight, bias = torch.randn(300, 8), torch.randn(8, 8), torch.randn(8)
    assert called[route] in ops_of(lambda: linear(x, weight, bias))
    assert called[LINEAR] in ops_of(lambda: linear(torch.randn(60000, 8), weight, bias))  # another is nearer
    assert called[LINEAR] in ops_of(lambda: linear(x[:100], weight, bias))  # too few to be worth a choice
    assert called[CONVOLUTION] in ops_of(lambda: linear(x, weight.clone().requires_grad_(), bias))
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))


def test_a_gain_within_the_noise_and_an_unknown_processor_change_nothing(monkeypatch):
    x, weight, bias = torch.randn(300, 8), torch.randn(8, 8), torch.randn(8)
    table(monkeypatch, (INFERENCE, 256, CONVOLUTION, 1.05))
    assert "aten::conv2d" not in ops_of(lambda: linear(x, weight, bias))
    table(monkeypatch)
    monkeypatch.setattr(product_routes, "this_processor", lambda: Processor("", frozenset()))
    assert "aten::conv2d" not in ops_of(lambda: linear(x, weight, bias))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_counters_and_transforms_see_ops_that_they_know(monkeypatch):
    table(monkeypatch, (INFERENCE, 256, INNER_PRODUCT, 2.0))
    x, weight, tangent = torch.randn(300, 8), torch.randn(8, 8), torch.randn(300, 8)
    with FlopCounterMode(display=False) as counter:
        linear(x, weight)
    assert counter.get_total_flops() == 2 * 300 * 8 * 8
    batched = torch.vmap(linear, (0, None))(x.view(1, 300, 8), weight)
    torch.testing.assert_close(batched[0], F.linear(x, weight))
    _, derivative = torch.func.jvp(lambda t: linear(t, weight), (x,), (tangent,))
    torch.testing.assert_close(derivative, F.linear(tangent, weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_halves_are_multiplied_in_single_precision_where_the_processor_lacks_them(
    monkeypatch, dtype, autocast
):
    module = sys.modules["qna.parts.linear"]
    monkeypatch.setattr(module, "this_processor", lambda: Processor("AuthenticAMD", frozenset({"avx2"})))
    module._is_slow.cache_clear()
    try:
        x, weight, bias = (torch.randn(size, requires_grad=True) for size in ((300, 64), (8, 64), (8,)))
        own = (
            (x, weight, bias)
            if autocast
            else tuple(t.detach().to(dtype).requires_grad_() for t in (x, weight, bias))
        )
        with torch.autocast("cpu", dtype, enabled=autocast):
            y = linear(*own)
        exact = F.linear(*(t.detach().double() for t in own))
        assert y.dtype == dtype
        # rounded once
        torch.testing.assert_close(y.double(), exact, rtol=torch.finfo(dtype).eps / 2 * 1.01, atol=1e-5)
        y.float().square().sum().backward()
        assert all(t.grad is not None and t.grad.dtype == t.dtype for t in own)
    finally:
        module._is_slow.cache_clear()


def test_another_dtype_of_the_weight_is_refused_as_by_torch():
    with pytest.raises(RuntimeError, match="same dtype"):
        linear(torch.randn(300, 8, dtype=torch.bfloat16), torch.randn(8, 8))


def test_rows_come_back_and_replace_those_of_their_processor(tmp_path):
    path = tmp_path / "routes.csv"
    old, new, other = (
        MeasuredProduct(name, INFERENCE, 256, 8, 16, route, 1.25, "abc", "2026-11-29T00:00:00+00:00")
        for name, route in (("A AVX2", LINEAR), ("A AVX2", CONVOLUTION), ("B AVX2", INNER_PRODUCT))
    )
    product_routes.save([old], path)
    product_routes.save([other], path)
    product_routes.save([new], path)
    assert product_routes.read(path) == [new, other]


def test_the_table_in_the_package_names_routes_and_gains():
    for row in product_routes.read():
        assert row.mode in {INFERENCE, TRAINING}
        assert row.route in {LINEAR, CONVOLUTION} | ({INNER_PRODUCT} if row.mode == INFERENCE else set())
        assert row.gain >= 1
        assert (row.gain == 1) == (row.route == LINEAR)


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


def test_a_layer_is_convolved_unless_somebody_watches(monkeypatch):
    table(monkeypatch, (TRAINING, 256, CONVOLUTION, 2.0))
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
    # sums that cancel differ by more than the bound in some draws
    torch.manual_seed(0)
    x = torch.randn(16, 8, 3, requires_grad=True)
    weight = torch.randn(2, 3, requires_grad=True)
    first = torch.autograd.grad(linear(x, weight).square().sum(), x, create_graph=True)[0]
    (second,) = torch.autograd.grad(first.sum(), weight)
    other = torch.autograd.grad(F.linear(x, weight).square().sum(), x, create_graph=True)[0]
    torch.testing.assert_close(second, torch.autograd.grad(other.sum(), weight)[0])
