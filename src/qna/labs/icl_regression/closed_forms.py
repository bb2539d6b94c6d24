"""What can be written down: gradient descent, ridge regression, and the best heads of the learned pattern.

Everything here is of one task that sees all covariates. d is the covariates, L the examples of a prompt, s2
the variance of the noise. The losses hold to leading order of d / L only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qna.labs.icl_regression.prompts import split


def best_rate(dim: int, length: int, noise: float) -> float:
    """Of one step of gradient descent from zero: 1 / (1 + d (1 + s2) / L)."""
    return 1 / (1 + dim * (1 + noise) / length)


def one_step(
    tokens: Tensor, query: Tensor, rate: float, *, debiased: bool = True, whitened_by: Tensor | None = None
) -> Tensor:
    """One step of gradient descent on the examples: (rate / L) sum_l y_l (x_l - mean x) . x_q.

    Args:
        tokens: (B, L, d + 1).
        query: (B, d + 1).
        rate: of the step.
        debiased: with the mean of the covariates taken away.
        whitened_by: covariance (d, d) whose inverse preconditions the step.

    Returns:
        (B, 1).
    """
    x, y = split(tokens, 1)
    asked, _ = split(query, 1)
    if debiased:
        x = x - x.mean(1, keepdim=True)
    if whitened_by is not None:
        asked = torch.linalg.solve(whitened_by.to(asked.dtype), asked.mT).mT
    return rate * (y * (x @ asked[..., None])).mean(1)


def ridge(tokens: Tensor, query: Tensor, noise: float) -> Tensor:
    """The Bayes estimate, ridge regression with lambda = d s2, (B, 1)."""
    x, y = split(tokens.double(), 1)
    asked, _ = split(query.double(), 1)
    gram = x.mT @ x + x.shape[-1] * noise * torch.eye(x.shape[-1], dtype=x.dtype)
    return (asked[:, None] @ torch.linalg.solve(gram, x.mT @ y))[:, 0].to(tokens.dtype)


def heads_of(tokens: Tensor, query: Tensor, omega: Tensor, mu: Tensor) -> Tensor:
    """Heads of the learned pattern: sum_h mu_h sum_l y_l softmax_l(omega_h x_l . x_q), (B, 1)."""
    x, y = split(tokens, 1)
    asked, _ = split(query, 1)
    shares = (omega.to(x.dtype) * (x @ asked[..., None])).softmax(1)
    return ((shares.mT @ y)[..., 0] @ mu.to(x.dtype))[:, None]


def approximate_loss(omega: Tensor, mu: Tensor, dim: int, length: int, noise: float) -> Tensor:
    """The paper's: 1 + s2 - 2 mu . omega + mu^T (omega omega^T + (1 + s2) / L exp(d omega omega^T)) mu."""
    return 1 + noise - 2 * mu @ omega + mu @ _matrix(omega, dim, length, noise) @ mu


def best_mu(omega: Tensor, dim: int, length: int, noise: float) -> Tensor:
    """The outputs that make `approximate_loss` smallest for given omega, (heads,).

    By least squares of smallest norm: two heads of one omega make the matrix singular.
    """
    return torch.linalg.lstsq(_matrix(omega, dim, length, noise), omega[:, None], driver="gelsd").solution[
        :, 0
    ]


def best_single_head(dim: int, length: int, noise: float) -> tuple[Tensor, Tensor]:
    """omega and mu of the best single head, omega = 1 / sqrt(d); each (1,), float64."""
    omega = torch.tensor([1 / math.sqrt(dim)], dtype=torch.float64)
    return omega, best_mu(omega, dim, length, noise)


def two_head_loss(dim: int, length: int, noise: float) -> float:
    """1 + s2 - 1 / (1 + d (1 + s2) / L): of two heads as omega goes to 0, and of the debiased step."""
    return 1 + noise - best_rate(dim, length, noise)


def one_head_loss(dim: int, length: int, noise: float) -> float:
    """1 + s2 - 1 / (1 + e d (1 + s2) / L)."""
    return 1 + noise - 1 / (1 + math.e * dim * (1 + noise) / length)


def _matrix(omega: Tensor, dim: int, length: int, noise: float) -> Tensor:
    outer = omega[:, None] * omega
    return outer + (1 + noise) / length * torch.exp(dim * outer)
