"""Routers of heads: gates by hand and by sums, the choice by length, the balance loss in closed form."""

import pytest
import torch
from torch import nn

from qna.parts.head_router import HeadRouter, NormRouter, balance_loss


def test_gates_by_hand():
    """Token by token, of the equations."""
    torch.manual_seed(0)
    router, x = HeadRouter(6, 7, shared=3, routed=2).double(), torch.randn(2, 5, 6, dtype=torch.float64)
    for p in router.parameters():
        nn.init.normal_(p)
    gates = router(x)
    for tokens, found in zip(x.flatten(0, 1), gates.flatten(0, 1), strict=True):
        p, alpha, among = ((layer.weight @ tokens).softmax(0) for layer in router.children())
        best = sorted(range(4), key=lambda j: -p[j])[:2]
        total = sum(p[j] for j in best)
        expected = [2 * alpha[0] * 3 * among[i] for i in range(3)]
        expected += [2 * alpha[1] * 2 * p[j] / total if j in best else p[j] * 0 for j in range(4)]
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shared", "routed"), [(0, 3), (1, 2), (4, 2), (6, 0), (2, 4), (0, 6)])
def test_gates_sum_to_what_they_must_and_so_many_are_open(shared, routed):
    torch.manual_seed(0)
    router, x = HeadRouter(8, 6, shared=shared, routed=routed).double(), torch.randn(3, 4, 8).double()
    for p in router.parameters():
        nn.init.normal_(p)
    gates = router(x)
    assert (gates >= 0).all()
    assert ((gates > 0).sum(-1) == shared + routed).all()
    assert (gates[..., :shared] > 0).all()
    alpha = torch.ones(3, 4, 2).double() if router.wg_0 is None else 2 * router.wg_0(x).softmax(-1)
    torch.testing.assert_close(gates.sum(-1), alpha[..., 0] * shared + alpha[..., 1] * routed)
    norm = NormRouter(6, shared=shared, routed=routed)
    q = torch.randn(3, 4, 6, 5)
    assert (norm.eval()(q).sum(-1) == shared + routed).all()
    assert ((norm.train()(q) - norm.eval()(q)).abs() < 1e-6).all()


def test_long_queries_choose():
    router = NormRouter(5, shared=2, routed=2)
    q = torch.tensor([9.0, 9.0, 1.0, 3.0, 2.0])[:, None] * torch.tensor([[0.6, -0.8]])
    for scale in (1.0, 1e-3, 50.0):
        assert router(scale * q[None, None])[0, 0].tolist() == [1, 1, 0, 1, 1]
    # heads that cannot be told apart have no deviation to divide by, and one head has none
    even = torch.ones(1, 4, 5, 2, requires_grad=True)
    router.train()(even).sum().backward()
    assert even.grad.isfinite().all()
    assert NormRouter(2, shared=1, routed=1)(torch.randn(1, 3, 2, 4)).tolist() == [[[1, 1]] * 3]


def test_no_gradient_goes_into_the_deviation():
    torch.manual_seed(0)
    router = NormRouter(5, shared=1, routed=2).train()
    q, weight = torch.randn(2, 3, 5, 4).double().requires_grad_(), torch.randn(2, 3, 4).double()
    (found,) = torch.autograd.grad((router(q)[..., 1:] * weight).sum(), q)
    lengths = q[:, :, 1:].norm(dim=-1)
    p = (lengths / lengths.std(-1, keepdim=True).detach()).softmax(-1)
    (expected,) = torch.autograd.grad((p * weight).sum(), q)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_closed_forms_of_the_balance_loss():
    chosen = torch.zeros(10, 8)
    chosen[:, :3] = 1
    # even probabilities, whoever is chosen
    assert balance_loss(torch.full((10, 8), 1 / 8), chosen).item() == pytest.approx(3)
    # all tokens choose the same three, and are sure of it
    assert balance_loss(chosen / 3, chosen).item() == pytest.approx(8)
    # sure, but each of another
    one = torch.eye(8)
    assert balance_loss(one, one).item() == pytest.approx(1)
    # as it is written: E squared times the mean over heads
    p, chosen = torch.randn(2, 5, 4).softmax(-1), (torch.rand(2, 5, 4) > 0.5).float()
    total = sum(p[..., j].mean() * chosen[..., j].mean() for j in range(4)) / 4
    assert balance_loss(p, chosen).item() == pytest.approx(16 * total.item(), rel=1e-5)
    router = HeadRouter(3, 6, shared=1, routed=2, balanced=True)
    nn.init.zeros_(router.wg.weight)
    router(torch.randn(2, 7, 3))
    assert router.take()[0].item() == pytest.approx(2)
