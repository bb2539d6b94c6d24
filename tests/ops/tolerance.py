"""Tolerances from arithmetic."""

import math

import torch

EPS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23}


def assert_close_to_oracle(actual, expected, *, terms, scale=1.0, name=""):
    """Compare with an fp64 `expected`: the error of a sum of `terms` products grows like eps * sqrt(terms).

    `scale` is the magnitude of what was summed, where that is not the result's (cancellation, large scores).
    """
    assert actual.shape == expected.shape, name
    if expected.numel() == 0:
        return
    limit = tolerance(actual.dtype, terms, max(scale, float(expected.abs().max())))
    error = float((actual.double() - expected).abs().max())
    assert error <= limit, f"{name}: error {error:.3g} is above {limit:.3g}"


def tolerance(dtype, terms, scale):
    """The error of a sum of `terms` products of magnitude `scale`."""
    return 8 * EPS[dtype] * math.sqrt(terms) * scale
