"""attend_routed against the form that gathers everything: values, gradients, memory, torch's own tools."""

import pytest
import torch

from qna.mixers.routing import attend
from qna.mixers.routing.attend import attend_routed, gathered_at_once

OPTIONS = {"num_heads": 2, "scale": 0.3}


def inputs(*, regions=6, tokens=5, dim=8, topk=3, images=2, dtype=torch.float64, hide=False):
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(images * regions, tokens, dim, generator=g, dtype=dtype) for _ in range(3)]
    routes = torch.rand(images * regions, regions, generator=g).topk(topk).indices
    routes += torch.arange(images).repeat_interleave(regions)[:, None] * regions
    # the first position of a region is always seen
    hidden = torch.rand(regions, tokens, generator=g) < 0.4 if hide else None
    if hidden is not None:
        hidden[:, 0] = False
    return maps, routes, hidden


def gathering(query, key, value, routes, hidden, *, num_heads, scale):
    """The form with topk copies of keys and values, and all scores: the oracle."""
    out = []
    for i, chosen in enumerate(routes):
        k, v = (t[chosen].flatten(0, 1).unflatten(-1, (num_heads, -1)) for t in (key, value))
        q = query[i].unflatten(-1, (num_heads, -1))
        scores = torch.einsum("nhd,mhd->hnm", q, k) * scale
        if hidden is not None:
            unseen = torch.cat([hidden[c % len(hidden)] for c in chosen.tolist()])
            scores = scores.masked_fill(unseen, float("-inf"))
        out.append(torch.einsum("hnm,mhd->nhd", scores.softmax(-1), v).flatten(1))
    return torch.stack(out)


@pytest.fixture(params=[2**19, 1, 500])
def limit(request, monkeypatch):
    """Everything at once, a query at a time, and some regions at a time."""
    monkeypatch.setitem(attend._AT_A_TIME, "cpu", request.param)
    return request.param


@pytest.fixture(params=["cpu", "elsewhere"])
def backward(request, monkeypatch):
    """The backward of CPUs, and that of other devices."""
    if request.param == "elsewhere":
        monkeypatch.setattr(attend, "_fused_backward", attend._plain_backward)


@pytest.mark.usefixtures("limit", "backward")
@pytest.mark.parametrize("hide", [False, True])
def test_values_and_gradients_of_the_gathering_form(hide):
    maps, routes, hidden = inputs(hide=hide)
    grad = torch.randn_like(maps[0])
    found, expected = ([t.clone().requires_grad_() for t in maps] for _ in range(2))
    y, z = (
        attend_routed(*found, routes, hidden=hidden, **OPTIONS),
        gathering(*expected, routes, hidden, **OPTIONS),
    )
    torch.testing.assert_close(y, z, rtol=1e-12, atol=1e-12)
    y.backward(grad)
    z.backward(grad)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("hide", [False, True])
def test_plain_torch_for_those_who_ask_for_it(hide):
    maps, routes, hidden = inputs(hide=hide)
    plain = attend._attend_plainly(*maps, routes, 2, 0.3, hidden)
    torch.testing.assert_close(plain, gathering(*maps, routes, hidden, **OPTIONS), rtol=1e-12, atol=1e-12)


def test_views_of_one_projection():
    """Queries, keys and values lie side by side in memory."""
    maps, routes, _ = inputs()
    packed = torch.cat(maps, -1).requires_grad_()
    y = attend_routed(*packed.split(8, -1), routes, **OPTIONS)
    torch.testing.assert_close(y, attend_routed(*maps, routes, **OPTIONS))
    y.square().sum().backward()
    assert packed.grad.isfinite().all()


def test_tensors_that_are_not_dense():
    """The gradient of a sum is one number in all places; channels may lie apart."""
    maps, routes, _ = inputs()
    found, expected = ([t.clone().requires_grad_() for t in maps] for _ in range(2))
    apart = [t.repeat_interleave(2, -1)[..., ::2] for t in found]
    attend_routed(*apart, routes, **OPTIONS).sum().backward()
    gathering(*expected, routes, None, **OPTIONS).sum().backward()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("backward")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_no_worse_than_the_gathering_form(dtype):
    exact, routes, _ = inputs(tokens=9)
    halves = [t.to(dtype) for t in exact]
    # the arithmetic alone: both begin from what was rounded
    exact = [t.double() for t in halves]
    grad = torch.randn(exact[0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(
        dtype
    )

    def all_of(function, maps):
        leaves = [t.clone().requires_grad_() for t in maps]
        y = function(leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))]

    def ours(maps):
        return attend_routed(*maps, routes, **OPTIONS)

    def theirs(maps):
        return gathering(*maps, routes, None, **OPTIONS)

    for found, other, expected in zip(
        all_of(ours, halves), all_of(theirs, halves), all_of(theirs, exact), strict=True
    ):
        assert found.dtype == dtype
        error = (found.double() - expected).abs().max()
        assert error <= 2 * (other.double() - expected).abs().max()


def test_torchs_own_checks_of_ops():
    maps, routes, hidden = inputs(hide=True)
    leaves = [t.requires_grad_() for t in maps]
    torch.library.opcheck(torch.ops.qna.routed_attention, (*leaves, routes, 2, 0.3, hidden))
    backward = (torch.ones_like(maps[0]), *(t.detach() for t in maps), routes, 2, 0.3, hidden)
    torch.library.opcheck(torch.ops.qna.routed_attention_backward, backward)


def test_no_regions():
    maps, routes, _ = inputs()
    none = [t[:0].requires_grad_() for t in maps]
    y = attend_routed(*none, routes[:0], **OPTIONS)
    assert y.shape == (0, 5, 8)
    y.sum().backward()


def largest(function):
    """Elements of the largest tensor that is made while `function` runs."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else (out,):
                if isinstance(t, torch.Tensor):
                    Watch.seen = max(Watch.seen, t.untyped_storage().nbytes() // t.element_size())
            return out

    with Watch():
        function()
    return Watch.seen


@pytest.mark.usefixtures("backward")
def test_nothing_of_the_size_of_copies_or_scores_is_ever_made(monkeypatch):
    """Also where one region alone has more scores than are held at a time, as on large maps."""
    monkeypatch.setitem(attend._AT_A_TIME, "cpu", 2000)
    maps, routes, _ = inputs(regions=9, tokens=100, topk=4, images=1)
    size, limit = maps[0].numel(), 2000
    args = (*maps, routes, 2, 0.3, None)
    grad = torch.ones_like(maps[0])
    gathered_of_a_region = 400 * 8
    for function in (
        lambda: attend._attend._init_fn(*args),
        lambda: attend._attend_backward._init_fn(grad, *args),
    ):
        assert largest(function) <= max(size, limit, gathered_of_a_region)
    assert largest(lambda: attend._attend_plainly(*args)) >= 4 * size
    assert gathered_at_once(9, 100, 4, 8) == 2 * gathered_of_a_region
    monkeypatch.undo()
    assert gathered_at_once(9, 100, 4, 8) == 9 * 2 * gathered_of_a_region
