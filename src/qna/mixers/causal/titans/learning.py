"""How a memory's weights move while a sequence is read: gradients at the start of a chunk, momentum, decay.

A memory is an MLP without biases, ``M(z) = W_L a(W_(L-1) ... a(W_1 z))`` with a = SiLU. Its loss of a key and
a value is ``|M(k) - v|^2``; all gradients of a chunk are taken at the weights with which the chunk begins.
The gradient of a layer is the outer product of what came in and of an error, so no token has weights of its
own: what token t reads is the start's weights, scaled, and a sum over the tokens before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = tuple[Tensor, ...]


@dataclass(frozen=True)
class Lesson:
    """What tokens of a chunk teach, all of it at the weights with which the chunk begins.

    Attributes:
        inputs: of each layer, (B, h, n, in).
        errors: gradients of the loss by each layer's output, (B, h, n, out).
        rate: theta, of the step (B, h, n).
        keep: eta, what stays of the momentum (B, h, n).
        decay: alpha, what is forgotten of the weights (B, h, n).
    """

    inputs: Weights
    errors: Weights
    rate: Tensor
    keep: Tensor
    decay: Tensor

    def __len__(self) -> int:
        return self.rate.shape[-1]

    def followed_by(self, other: Lesson) -> Lesson:
        """Both, one behind the other."""
        inputs, errors = (
            tuple(torch.cat(pair, 2) for pair in zip(mine, theirs, strict=True))
            for mine, theirs in ((self.inputs, other.inputs), (self.errors, other.errors))
        )
        gates = (
            torch.cat([getattr(self, name), getattr(other, name)], -1) for name in ("rate", "keep", "decay")
        )
        return Lesson(inputs, errors, *gates)


def forward(weights: Weights, z: Tensor) -> Tensor:
    """``M(z)``: (B, h, n, d) by weights (B, h, out, in)."""
    for layer, weight in enumerate(weights):
        z = (F.silu(z) if layer else z) @ weight.mT
    return z


def lesson(weights: Weights, key: Tensor, value: Tensor, gates: tuple[Tensor, ...]) -> Lesson:
    """What keys and values teach at these weights.

    Args:
        weights: of each layer, (B, h, out, in).
        key: (B, h, n, d).
        value: (B, h, n, d).
        gates: rate, keep and decay, (B, h, n).
    """
    inputs, before = [], []
    z = key
    for layer, weight in enumerate(weights):
        if layer:
            before.append(z)
            z = F.silu(z)
        inputs.append(z)
        z = z @ weight.mT
    error = 2 * (z - value)
    errors = [error]
    for weight, z in zip(reversed(weights[1:]), reversed(before), strict=True):
        sigmoid = z.sigmoid()
        error = (error @ weight) * sigmoid * (1 + z * (1 - sigmoid))
        errors.append(error)
    return Lesson(tuple(inputs), tuple(reversed(errors)), *gates)


@dataclass(frozen=True)
class Spread:
    """How far each token of a chunk reaches: ``M_t = start_t M_0 + before_t S_0 - sum_i taught_ti grad_i``.

    Of the recurrences ``S_t = keep_t S_(t-1) - rate_t grad_t`` and ``M_t = (1 - decay_t) M_(t-1) + S_t``.

    Attributes:
        start: (B, h, n).
        before: (B, h, n).
        taught: (B, h, n, n), 0 above the diagonal.
        momentum: (B, h, n): ``S_t = prod keep S_0 - sum_i moved_ti grad_i``, the product.
        moved: (B, h, n, n).
    """

    start: Tensor
    before: Tensor
    taught: Tensor
    momentum: Tensor
    moved: Tensor


def spread(rate: Tensor, keep: Tensor, decay: Tensor) -> Spread:
    """By products of gates from one token to another; gates of 0 and of 1 are exact."""
    held = _products(1 - decay)
    carried = _products(keep)
    momentum = keep.cumprod(-1)
    moved = carried * rate[..., None, :]
    return Spread(
        (1 - decay).cumprod(-1), (held @ momentum[..., None])[..., 0], held @ moved, momentum, moved
    )


def _products(gates: Tensor) -> Tensor:
    """``P_ti``, the product of the gates behind i up to t; 1 on the diagonal, 0 above: (..., n) -> (..., n,
    n)."""
    n = gates.shape[-1]
    behind = torch.ones(n, n, dtype=torch.bool, device=gates.device).tril(-1)
    steps = torch.where(behind, gates[..., :, None], torch.ones_like(gates)[..., :, None])
    return steps.cumprod(-2).tril()


def read(weights: Weights, momenta: Weights, taught: Lesson, reach: Spread, query: Tensor) -> Tensor:
    """``M_t(q_t)`` for the last n tokens of a chunk, each by the weights that it leaves behind.

    Args:
        weights: M_0, of each layer.
        momenta: S_0, the same shapes.
        taught: by all tokens of the chunk so far, m of them.
        reach: of these.
        query: (B, h, n, d), of the last n.
    """
    n = query.shape[2]
    start, before = reach.start[..., -n:, None], reach.before[..., -n:, None]
    rows = reach.taught[..., -n:, :]
    z = query
    for layer, (weight, momentum) in enumerate(zip(weights, momenta, strict=True)):
        if layer:
            z = F.silu(z)
        shares = (z @ taught.inputs[layer].mT) * rows
        z = start * (z @ weight.mT) + before * (z @ momentum.mT) - shares @ taught.errors[layer]
    return z


def learned(weights: Weights, momenta: Weights, taught: Lesson, reach: Spread) -> tuple[Weights, Weights]:
    """Weights and momenta behind the last token of a chunk."""
    made, moving = [], []
    for layer, (weight, momentum) in enumerate(zip(weights, momenta, strict=True)):
        errors, inputs = taught.errors[layer], taught.inputs[layer]
        by_weights, by_momentum = (
            (errors * rows[..., -1, :, None]).mT @ inputs for rows in (reach.taught, reach.moved)
        )
        start, before, kept = (t[..., -1, None, None] for t in (reach.start, reach.before, reach.momentum))
        made.append(start * weight + before * momentum - by_weights)
        moving.append(kept * momentum - by_momentum)
    return tuple(made), tuple(moving)
