"""A toy of two tensors registered as the ops of the package are: what each gets without writing it."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qna.ops import register_flop_formulas
from qna.ops._shared.kernel_op import KernelOp


class ScaledTanh(KernelOp):
    """tanh(map) * factor ** power + shift, with a map (N, C) and a factor (C,)."""

    name = "toy"
    function = "tests.scaled_tanh"
    maps = ("x",)
    parameters = ("factor",)
    constants = ("shift?",)
    options = ("SymInt[] powers",)

    def encode(self, power):
        return ([power],)

    def decode(self, parameters, powers):
        return (powers[0],)

    def empty_output(self, x, factor, shift, power):
        return torch.empty_like(x)

    def empty_kept(self, output, x, factor, shift, power):
        return torch.empty_like(x)

    def forward_flops(self, x, factor, shift, power):
        return 3 * x.numel()

    def backward_flops(self, x, factor, shift, power):
        return 7 * x.numel()


class FromItsOutput(ScaledTanh):
    """The same, differentiated by what it returned."""

    name = "toy_from_output"
    keeps_output = True


class WithItsTanh(ScaledTanh):
    """The same, and tanh(map) as a result of its own."""

    name = "toy_with_kept"
    keeps_output = True
    returns_kept = True


def forward(x, factor, shift, output, kept, power):
    t = x.tanh()
    output.copy_(t * factor**power)
    if shift is not None:
        output.add_(shift)
    if kept is not None:
        kept.copy_(t)


def gradients(grad, t, x, factor, grads, power, wanted):
    grads[0].copy_(grad * factor**power * (1 - t * t))
    # in another dtype, as sums are
    return ((grad * t * power * factor ** (power - 1)).sum(0).double() if wanted else None,)


def backward(grad, x, factor, shift, kept, grads, power, wanted):
    return gradients(grad, x.tanh() if kept is None else kept, x, factor, grads, power, wanted)


def backward_from_output(grad, x, factor, shift, output, kept, grads, power, wanted):
    t = (output - (0 if shift is None else shift)) / factor**power
    return gradients(grad, t, x, factor, grads, power, wanted)


def backward_of_both(grad, of_kept, x, factor, shift, output, kept, grads, power, wanted):
    sums = gradients(grad, kept, x, factor, grads, power, wanted)
    grads[0].add_(of_kept * (1 - kept * kept))
    return sums


TOY = ScaledTanh()
attend = {
    "plain": TOY.register("plain", forward, backward, device="cpu", keeps=False),
    "keeping": TOY.register("keeping", forward, backward, device="cpu", keeps=True),
    "output": FromItsOutput().register("plain", forward, backward_from_output, device="cpu", keeps=False),
    "both": WithItsTanh().register("plain", forward, backward_of_both, device="cpu", keeps=True),
}
OPS = {
    "plain": "toy_plain",
    "keeping": "toy_keeping",
    "output": "toy_from_output_plain",
    "both": "toy_with_kept_plain",
}
BACKENDS = pytest.mark.parametrize("backend", attend)


def tensors(dtype=torch.float64, rows=4):
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: E731
    return draw(rows, 3).requires_grad_(), (draw(3).abs() + 0.5).requires_grad_(), draw(rows, 3)


def by_torch(x, factor, shift, power):
    return x.tanh() * factor**power + (0 if shift is None else shift)


@BACKENDS
@pytest.mark.parametrize("shifted", [True, False])
def test_values_and_gradients(backend, shifted):
    x, factor, shift = tensors(torch.float32)
    shift = shift if shifted else None
    actual, expected = attend[backend](x, factor, shift, 3), by_torch(x, factor, shift, 3)
    torch.testing.assert_close(actual, expected)
    upstream = torch.randn_like(expected)
    grads = torch.autograd.grad(actual, (x, factor), upstream)
    assert grads[1].dtype == torch.float32
    torch.testing.assert_close(grads, torch.autograd.grad(expected, (x, factor), upstream))
    assert torch.equal(attend[backend](x.detach(), factor.detach(), shift, 3), actual)


@BACKENDS
def test_opcheck(backend):
    *leaves, shift = tensors(torch.float32)
    name = OPS[backend]
    torch.library.opcheck(getattr(torch.ops.qna, name).default, (*leaves, shift, [3]))
    torch.library.opcheck(getattr(torch.ops.qna, name).default, (*leaves, None, [3]))
    kept = leaves[0].detach().tanh() if backend in ("keeping", "both") else None
    plain = [t.detach() for t in leaves]
    output = (by_torch(*plain, shift, 3),) if backend in ("output", "both") else ()
    of_kept = (torch.ones(4, 3),) if backend == "both" else ()
    torch.library.opcheck(
        getattr(torch.ops.qna, f"{name}_backward").default,
        (torch.ones(4, 3), *of_kept, *plain, shift, *output, kept, True, [3]),
        test_utils=("test_schema", "test_faketensor"),
    )


@BACKENDS
def test_gradcheck(backend):
    x, factor, shift = tensors()
    assert torch.autograd.gradcheck(lambda *t: attend[backend](*t, shift, 3), (x, factor))


@pytest.mark.parametrize(
    ("backend", "dynamic"), [("plain", False), ("keeping", True), ("output", True), ("both", True)]
)
def test_compiles_without_graph_breaks(backend, dynamic):
    torch._dynamo.reset()

    def step(x, factor, shift):
        return attend[backend](x * 2, factor, shift, 2).sin()

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows in (4, 5):
        x, factor, shift = tensors(rows=rows)
        actual, expected = compiled(x, factor, shift), step(x, factor, shift)
        torch.testing.assert_close(actual, expected)
        grads = [torch.autograd.grad(y.sum(), (x, factor)) for y in (actual, expected)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("used", [(True, True), (True, False), (False, True)])
def test_gradients_of_what_is_kept(used):
    x, factor, shift = tensors()
    both, expected = (
        attend["both"](x, factor, shift, 3, return_kept=True),
        (by_torch(x, factor, shift, 3), x.tanh()),
    )
    torch.testing.assert_close(both, expected)
    sums = (sum(t.sin().sum() for t, use in zip(y, used, strict=True) if use) for y in (both, expected))
    grads = [torch.autograd.grad(total, (x, factor), materialize_grads=True) for total in sums]
    torch.testing.assert_close(*grads)


@BACKENDS
def test_a_second_derivative_is_refused_aloud(backend):
    x, factor, shift = tensors()
    (grad,) = torch.autograd.grad(attend[backend](x, factor, shift, 3).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"tests\.scaled_tanh has no second derivative"):
        grad.sum().backward()


@BACKENDS
def test_a_gradient_of_a_constant_is_refused_aloud(backend):
    x, factor, shift = tensors()
    out = attend[backend](x, factor, shift.requires_grad_(), 3)
    with pytest.raises(NotImplementedError, match='no gradient of shift: call it with backend="reference"'):
        out.sum().backward()


@BACKENDS
def test_an_empty_map_gives_zeros(backend):
    x, factor, shift = tensors(rows=0)
    out = attend[backend](x, factor, shift, 3)
    x_grad, factor_grad = torch.autograd.grad(out.sum(), (x, factor))
    assert x_grad.shape == (0, 3)
    assert (factor_grad == 0).all()


def test_nothing_is_kept_without_gradients():
    seen = []

    def spy(x, factor, shift, output, kept, power):
        seen.append(kept is not None)
        forward(x, factor, shift, output, kept, power)

    run = TOY.register("spied", spy, backward, device="cpu", keeps=True)
    x, factor, shift = tensors()
    run(x, factor, shift, 3)
    with torch.no_grad():
        run(x, factor, shift, 3)
    run(x.detach(), factor.detach(), shift, 3)
    assert seen == [True, False, False]


@BACKENDS
def test_flops_are_counted(backend):
    register_flop_formulas()
    x, factor, shift = tensors()
    with FlopCounterMode(display=False) as counter:
        attend[backend](x, factor, shift, 3).sum().backward()
    assert counter.get_total_flops() == (3 + 7) * x.numel()


def test_a_kernel_never_reads_addresses_of_another_device():
    for name in ("toy_plain", "toy_plain_backward"):
        has = [torch._C._dispatch_has_kernel_for_dispatch_key(f"qna::{name}", key) for key in ("CPU", "CUDA")]
        assert has == [True, False]
