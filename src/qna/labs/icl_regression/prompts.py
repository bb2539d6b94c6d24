"""Prompts of in-context regression: examples of a linear function that no other prompt has, and a query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qna._core.errors import InvalidInput


@dataclass(frozen=True)
class Regression:
    """A distribution of prompts (He, Pan, Chen, Yang, ICML 2025).

    Covariates are x ~ N(0, S); in each prompt every task draws weights of its own, beta ~ N(0, I / d), and
    answers y = beta . x + N(0, noise), d the covariates that it sees.

    Attributes:
        dim: covariates.
        noise: variance of the answers' noise; above 0.
        correlation: of neighbouring covariates, S_ij = correlation^|i - j|; 0 for S = I.
        tasks: which covariates each task sees; one task that sees all by default.
    """

    dim: int = 5
    noise: float = 0.1
    correlation: float = 0.0
    tasks: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self):
        if self.dim < 1 or not 0 < self.noise < math.inf or not -1 < self.correlation < 1:
            raise InvalidInput(
                "prompts need dim of 1 or more, noise above 0 and a correlation between -1 and 1, got "
                f"dim={self.dim}, noise={self.noise:g} and correlation={self.correlation:g}"
            )
        for sees in self.tasks:
            if not sees or len(set(sees)) < len(sees) or not all(0 <= i < self.dim for i in sees):
                raise InvalidInput(
                    f"a task sees different covariates of 0 to {self.dim - 1}, one at least, got {sees}"
                )

    @property
    def seen(self) -> tuple[tuple[int, ...], ...]:
        """Covariates of each task."""
        return self.tasks or (tuple(range(self.dim)),)

    @property
    def width(self) -> int:
        """Channels of a prompt's token: covariates, then the answer of every task."""
        return self.dim + len(self.seen)

    @property
    def covariance(self) -> Tensor:
        """S, (dim, dim), float64."""
        steps = torch.arange(self.dim, dtype=torch.float64)
        return torch.tensor(self.correlation, dtype=torch.float64) ** (steps[:, None] - steps).abs()

    def draw(self, batch: int, length: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts of so many examples.

        Returns:
            Examples (B, L, width), queries (B, width) whose answers are 0, and the answers (B, tasks), noise
            included.
        """
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(batch, length + 1, self.dim, generator=generator)
        if self.correlation:
            x = x @ torch.linalg.cholesky(self.covariance).T.to(x.dtype)
        answers = []
        for sees in self.seen:
            beta = torch.randn(batch, len(sees), 1, generator=generator) / math.sqrt(len(sees))
            noise = torch.randn(batch, length + 1, 1, generator=generator)
            answers.append(x[..., list(sees)] @ beta + math.sqrt(self.noise) * noise)
        y = torch.cat(answers, -1)
        tokens = torch.cat([x, y], -1)
        query = torch.cat([x[:, -1], torch.zeros_like(y[:, -1])], -1)
        return tokens[:, :-1], query, y[:, -1]


def split(tokens: Tensor, tasks: int) -> tuple[Tensor, Tensor]:
    """Covariates and answers of tokens (..., width)."""
    return tokens[..., :-tasks], tokens[..., -tasks:]


def tasks_in_turn(dim: int, sizes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Two tasks that see the first and the last covariates, so that they share some in the middle."""
    first, last = sizes
    return tuple(range(first)), tuple(range(dim - last, dim))
