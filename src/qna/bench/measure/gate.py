"""The equality gate: no time is taken of a contender whose output or gradients differ from its definition.

At the full size that will be timed, at sampled positions. The output there, and for a backward the gradients
of every leaf from an output gradient that is zero elsewhere, are compared with the definition in fp64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from qna.bench.measure.contender import BACKWARD, Contender

POSITIONS = 24


class WrongOutput(Exception):
    """What a contender computed is not what it shall compute; the text says where and by how much."""


def verify(contender: Contender, mode: str) -> Tensor:
    """Compare one run with the definition.

    Returns:
        the output that was compared.

    Raises:
        WrongOutput: the first output or gradient that differs by more than rounding.
    """
    leaves = contender.leaves
    exact = {name: t.detach().double().requires_grad_() for name, t in leaves.items()}
    with torch.set_grad_enabled(mode == BACKWARD):
        out = contender.forward()
        at = positions(out)
        expected = contender.definition(exact, at)
    found = pick(out, at)
    check("output", found, expected, contender.terms, out.dtype)
    if mode == BACKWARD:
        generator = torch.Generator().manual_seed(1)
        sample = torch.randn(expected.shape, generator=generator).to(out.dtype).to(out.device)
        gradient = torch.zeros_like(out)
        gradient[at[:, 0], at[:, 1], at[:, 2]] = sample.view(found.shape)
        # a table that the definition does not reach gets zeros there, and must here
        actual = torch.autograd.grad(out, list(leaves.values()), gradient)
        wanted = torch.autograd.grad(expected, list(exact.values()), sample.double(), materialize_grads=True)
        for name, a, w in zip(leaves, actual, wanted, strict=True):
            check(f"gradient of {name}", a, w, contender.terms * POSITIONS, out.dtype)
    return out.detach()


def positions(out: Tensor) -> Tensor:
    """(P, 3) of (image, row, column): all corners of the first and last image, the rest spread by a seed."""
    batch, height, width = out.shape[:3]
    corners = [(b, y, x) for b in (0, batch - 1) for y in (0, height - 1) for x in (0, width - 1)]
    generator = torch.Generator().manual_seed(2)
    spread = [
        torch.randint(n, (POSITIONS,), generator=generator).tolist() for n in (batch, height, width)
    ]  # fmt: skip
    # a position twice would get the sum of two gradients there, and one of them here
    every = list(dict.fromkeys([*corners, *zip(*spread, strict=True)]))[:POSITIONS]
    return torch.tensor(every, device=out.device)


def pick(map_: Tensor, at: Tensor) -> Tensor:
    """Values (P, ...) of a map (B, H, W, ...) at positions (P, 3)."""
    return map_[at[:, 0], at[:, 1], at[:, 2]]


def check(name: str, found: Tensor, expected: Tensor, terms: int, dtype: torch.dtype) -> None:
    """Raise `WrongOutput` where `found` differs from the fp64 `expected` by more than rounding.

    The error of a sum of `terms` products grows like eps * sqrt(terms); in half precision what is stored
    between steps dominates, which averages out over the terms.
    """
    expected = expected.detach()
    found = found.detach().double().reshape(expected.shape)
    growth = math.sqrt(terms) if torch.finfo(dtype).bits >= 32 else 1.0
    tolerance = 16 * torch.finfo(dtype).eps * growth * max(1.0, float(expected.abs().max()))
    error = float((found - expected).abs().max()) if bool(found.isfinite().all()) else math.inf
    if not error <= tolerance:
        raise WrongOutput(f"{name} differs by {error:.3g}, rounding allows {tolerance:.3g}")


def check_arrays(
    found: Mapping[str, Tensor], contender: Contender, at: Tensor, sample: Tensor | None
) -> None:
    """As `verify`, for what another process computed: "output" and, with `sample`, gradients by leaf."""
    exact = {name: t.detach().double().requires_grad_() for name, t in contender.leaves.items()}
    expected = contender.definition(exact, at)
    dtype = next(iter(contender.leaves.values())).dtype
    check("output", pick(found["output"], at), expected, contender.terms, dtype)
    if sample is not None:
        wanted = torch.autograd.grad(expected, list(exact.values()), sample.double(), materialize_grads=True)
        for name, w in zip(exact, wanted, strict=True):
            check(f"gradient of {name}", found[name], w, contender.terms * POSITIONS, dtype)
