"""What really depends on what: one place of a map is spoiled, and what comes out differently depends on it.

A NaN shows all that is read, also what is then multiplied by zero; a number shows what makes a difference.
"""

import torch


def seen_by_outputs(function, shape, axes_in, axis, *, axes_out=None, spoil=torch.nan):
    """Of each output position along an axis, the first and last input position that it depends on, or None.

    Args:
        function: from a tensor of `shape` to one.
        axes_in: axes of the tensor with positions.
        axis: which of them.
        axes_out: axes of the result with positions; None for the same, from the end.
        spoil: what is put in a place.
    """
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    axes_out = axes_in if axes_out is None else axes_out
    seen = None
    with torch.no_grad():
        plain = function(x)
    for place in range(shape[axes_in[axis]]):
        spoiled = x.clone()
        spoiled.select(axes_in[axis], place).fill_(spoil)
        with torch.no_grad():
            y = function(spoiled)
        others = [a for a in range(y.ndim) if a - y.ndim != axes_out[axis]]
        hit = (y != plain).amax(others)
        if seen is None:
            seen = [None] * len(hit)
        for i in hit.nonzero().flatten().tolist():
            seen[i] = (place, place) if seen[i] is None else (seen[i][0], place)
    return seen
