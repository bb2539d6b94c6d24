import math

import pytest
import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput, NoBackend, UnknownName
from qna.ops import gelu
from qna.ops.activation import cpu

compiled = pytest.mark.skipif(cpu.BACKEND.missing() != [], reason="the kernels are not in this installation")
forms = pytest.mark.parametrize("form", ["tanh", "none"])
EPS = 2.0**-23


@pytest.fixture(params=cpu._native.instruction_sets() if cpu._native else [])
def instruction_set(request):
    before = cpu._native.in_use()
    cpu._native.use(request.param)
    yield
    cpu._native.use(before)


def with_slope(x, form, backend):
    x = x.clone().requires_grad_()
    y = gelu(x, approximate=form, backend=backend)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), slope


@pytest.mark.usefixtures("instruction_set")
@forms
def test_no_further_from_the_exact_value_than_torch(form):
    x = torch.linspace(-20, 20, 200_003)
    exact = with_slope(x.double(), form, "reference")
    ours, torchs = with_slope(x, form, "cpu"), with_slope(x, form, "reference")
    for mine, other, truth in zip(ours, torchs, exact, strict=True):
        # the product with x is rounded once more, in either
        unit = EPS * truth.abs().clamp(min=0.5)
        assert float(((mine - truth).abs() / unit).max()) <= 1 + float(((other - truth).abs() / unit).max())


@pytest.mark.usefixtures("instruction_set")
@forms
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once(form, dtype):
    x = torch.linspace(-12, 12, 10_007).to(dtype)
    exact = with_slope(x.double(), form, "reference")
    for mine, truth in zip(with_slope(x, form, "cpu"), exact, strict=True):
        limit = torch.finfo(dtype).eps / 2 * truth.abs() + torch.finfo(dtype).tiny + 8 * EPS
        assert mine.dtype == dtype
        assert ((mine.double() - truth).abs() <= limit).all()


@compiled
@forms
def test_far_out_it_is_the_positive_part(form):
    x = torch.tensor([math.inf, 3e38, 1e20, 100.0, -100.0, -1e20, -3e38, -math.inf])
    y, slope = with_slope(x, form, "cpu")
    assert torch.equal(y[:4], x[:4])
    assert torch.equal(slope[:4], torch.ones(4))
    # less than the smallest number that torch's own form of it can give beside 1
    assert y[4:].abs().max() < 1e-30
    assert slope[4:].abs().max() < 1e-30


@compiled
@forms
def test_a_nan_stays_one_and_alone(form):
    x = torch.randn(40)
    x[7] = math.nan
    for result in with_slope(x, form, "cpu"):
        assert result.isnan().nonzero().tolist() == [[7]]


@compiled
@forms
@pytest.mark.parametrize("layout", ["dense", "channels last", "every other", "expanded", "overlapping"])
def test_any_memory_layout(form, layout):
    x = torch.randn(2, 6, 5, 7)
    x = {
        "dense": x,
        "channels last": x.to(memory_format=torch.channels_last),
        "every other": x[:, ::2, :, 1::3],
        "expanded": x[:1].expand(3, 6, 5, 7),
        "overlapping": x.flatten().as_strided((5, 4), (1, 1)),
    }[layout].detach()
    ours, torchs = with_slope(x, form, "cpu"), with_slope(x, form, "reference")
    assert ours[0].shape == x.shape
    for mine, other in zip(ours, torchs, strict=True):
        assert torch.allclose(mine, other, rtol=8 * EPS, atol=8 * EPS)


@compiled
@forms
def test_a_gradient_of_another_layout(form):
    x = torch.randn(3, 4, 5).requires_grad_()
    upstream = torch.randn(5, 4, 3).permute(2, 1, 0)
    grads = [
        torch.autograd.grad(gelu(x, approximate=form, backend=b), x, upstream)[0]
        for b in ("cpu", "reference")
    ]
    assert torch.allclose(*grads, rtol=8 * EPS, atol=8 * EPS)


@compiled
def test_threads_change_nothing():
    x = torch.randn(3, 50_000)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(gelu(x, approximate="tanh", backend="cpu"))
    torch.set_num_threads(before)
    assert all(torch.equal(results[0], r) for r in results[1:])


def test_an_empty_map():
    x = torch.empty(0, 4, requires_grad=True)
    gelu(x).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (0, 4)


@forms
def test_without_a_name_it_is_torchs_function(form):
    x = torch.randn(100, dtype=torch.float64)
    assert torch.equal(gelu(x, approximate=form, backend="reference"), F.gelu(x, approximate=form))


def test_what_it_refuses():
    with pytest.raises(UnknownName, match="tanh"):
        gelu(torch.ones(2), approximate="tan")
    with pytest.raises(InvalidInput, match=r"must be floating point, got int64; try x\.float\(\)"):
        gelu(torch.ones(2, dtype=torch.int64))
    with pytest.raises(InvalidInput, match="x must be a tensor, got float"):
        gelu(1.0)
    if not cpu.BACKEND.missing():
        with pytest.raises(NoBackend, match="dtype is float64"):
            gelu(torch.ones(2, dtype=torch.float64), backend="cpu")
