"""Attention of dense keys is its formula, with and without torch's fused form, and follows transforms."""

import pytest
import torch
from torch.autograd import forward_ad

from qna.parts.attend import attend

TOLERANCE = 1e-13


def drawn(*, added, values=5):
    g = torch.Generator().manual_seed(0)
    query, key, value, scores = (
        torch.randn(2, 3, n, d, generator=g, dtype=torch.float64)
        for n, d in ((4, 6), (7, 6), (7, values), (4, 7))
    )
    scores[0, 0, 1, :5] = float("-inf")
    return (query, key, value, *([scores] if added else []))


def formula(query, key, value, added=None):
    logits = torch.einsum("bhnd,bhmd->bhnm", query, key) / query.shape[-1] ** 0.5
    shares = torch.exp(logits if added is None else logits + added)
    return torch.einsum("bhnm,bhme->bhne", shares / shares.sum(-1, keepdim=True), value)


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_it_is_its_formula_and_so_are_its_gradients(added, wanted):
    tensors = [t.requires_grad_(wanted) for t in drawn(added=added)]
    found, expected = attend(*tensors), formula(*tensors)
    assert (found - expected).abs().max() < TOLERANCE
    if wanted:
        weight = torch.arange(found.numel(), dtype=torch.float64).reshape(found.shape).sin()
        both = [torch.autograd.grad((y * weight).sum(), tensors) for y in (found, expected)]
        for ours, theirs in zip(*both, strict=True):
            assert (ours - theirs).abs().max() < TOLERANCE


# torch's rules of forward mode are scripted
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("added", [False, True])
def test_forward_mode_derivatives(added):
    # the fused form wants values of as many channels
    tensors = drawn(added=added, values=6)
    steps = [torch.ones_like(t) * 0.3 for t in tensors]
    with forward_ad.dual_level():
        dual = [forward_ad.make_dual(t, step) for t, step in zip(tensors, steps, strict=True)]
        found, expected = (forward_ad.unpack_dual(f(*dual)).tangent for f in (attend, formula))
    assert (found - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("added", [False, True])
def test_vmap_of_what_wants_gradients(added):
    tensors = [t.requires_grad_() for t in drawn(added=added, values=6)]
    mapped = torch.func.vmap(attend)(*(t.unsqueeze(1) for t in tensors)).squeeze(1)
    assert (mapped - formula(*tensors)).abs().max() < TOLERANCE
