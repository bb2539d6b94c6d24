"""A backend beside the reference in fp64: output, log-sum-exp and all gradients."""

import math

import torch

from qna.ops import neighborhood_attention
from tests.ops.equality import leaf
from tests.ops.tolerance import assert_close_to_oracle

D = torch.float64


def as_(t, dtype):
    return t.to(dtype) if t.is_floating_point() else t


def results(tensors, window, backend, *, of_lse=True):
    """Output, log-sum-exp and all gradients by name, of random upstream gradients of both or of the first."""
    leaves = {name: leaf(t) for name, t in tensors.items()}
    out, lse = neighborhood_attention(**leaves, **window, return_lse=True, backend=backend)
    g = torch.Generator().manual_seed(1)
    total = sum(
        (
            torch.randn(t.shape, generator=g, dtype=D).to(t.device, t.dtype)
            * t.masked_fill(t == -math.inf, 0)
        ).sum()
        for t in (out, lse)[: 1 + of_lse]
    )
    total.backward()
    grads = {name: t.grad for name, t in leaves.items() if t.requires_grad}
    return {"out": out.detach(), "lse": lse.detach(), **grads}


def assert_equal(case, tensors, dtype, backend, **options):
    """`tensors` in fp64 hold what `dtype` can, so that both get the same numbers."""
    actual = results({n: as_(t, dtype) for n, t in tensors.items()}, case.window, backend, **options)
    expected = results(tensors, case.window, "reference", **options)
    queries = case.batch * math.prod(case.space)
    scale = max(float(t.abs().max()) for t in expected.values() if t.numel() and t.isfinite().all())
    for name, e in expected.items():
        a = actual[name]
        assert torch.equal(a == -math.inf, e == -math.inf), name
        terms = case.terms * (queries if name in ("bias", "extra_keys", "extra_values") else 1)
        a, finite = (t.masked_fill(t == -math.inf, 0) for t in (a, e))
        assert_close_to_oracle(a, finite, terms=terms, scale=scale, name=name)
