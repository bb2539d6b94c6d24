"""Any op on any backend beside its reference: output and all gradients."""

import torch

from tests.ops.tolerance import assert_close_to_oracle, tolerance


def leaf(t):
    """`t` with a gradient, if it can have one: a mask has none."""
    return None if t is None else t.detach().requires_grad_(t.is_floating_point())


def run(row, inputs, window, backend, upstream_dtype=None):
    """Output and gradients by name, for a random upstream gradient that `upstream_dtype` can hold."""
    leaves = {k: leaf(t) for k, t in inputs.items()}
    out = row.function(**leaves, **window, backend=backend)
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out.backward(g.to(upstream_dtype or out.dtype).to(out.device, out.dtype))
    grads = {k: t.grad for k, t in leaves.items() if t is not None and t.requires_grad}
    return {"out": out.detach(), **grads}


def assert_equals_reference(row, case, inputs, backend):
    """Compare output and all gradients with the reference in fp64; half precision with its own rounding."""
    actual = run(row, inputs, case.window, backend)
    dtype, device = actual["out"].dtype, actual["out"].device
    given = {k: t.cpu() for k, t in inputs.items() if t is not None}
    double = {k: t.double() if t.is_floating_point() else t for k, t in given.items()}
    expected = run(row, double, case.window, row.reference.name, upstream_dtype=dtype)
    assert actual.keys() == expected.keys()
    rounded = expected if dtype == torch.float32 else run(row, given, case.window, row.reference.name)
    for name, e in expected.items():
        a = actual[name]
        assert a.shape == e.shape, name
        assert a.device == device, name
        assert a.isfinite().all(), name
        # parameters gather one term per window, the others one per tap
        map_like = name == "out" or e.shape[: len(case.space) + 1] == (case.batch, *case.space)
        count = case.terms * (1 if map_like else actual["out"].numel())
        if dtype == torch.float32:
            assert_close_to_oracle(a.cpu(), e, terms=count, scale=_scale(expected), name=name)
        else:
            # what fp32 leaves of terms that cancel: no gradient, of the score in a window of one position
            floor = tolerance(torch.float32, count, _scale(expected))
            _assert_rounds_alike(a, rounded[name], e, floor, name)


def _assert_rounds_alike(actual, reference, expected, floor, name):
    """In half precision the error is at most twice the reference's at that dtype, and a unit of rounding.

    `floor` is the error of fp32, in which half precision is computed.
    """
    unit = torch.finfo(actual.dtype).eps * float(expected.abs().max())
    limit = 2 * float((reference.double() - expected).abs().max()) + unit + floor
    error = float((actual.cpu().double() - expected).abs().max())
    assert error <= limit, f"{name}: error {error:.3g} is above {limit:.3g}"


def _scale(expected):
    return max(float(t.abs().max()) for t in expected.values() if t.numel())
