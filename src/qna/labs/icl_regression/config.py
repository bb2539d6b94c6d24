"""What the laboratory of in-context regression is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_rates
from qna.labs.icl_regression.prompts import Regression, tasks_in_turn


@dataclass(frozen=True)
class IclRegressionConfig:
    """Attention that learns to regress within a prompt.

    Attributes:
        dim: covariates.
        length: examples of the prompts that it learns from.
        noise: variance of the answers' noise.
        correlation: of neighbouring covariates where they are not independent.
        task_sizes: covariates that each of two tasks sees where there are two.
        lengths: examples of further prompts to judge on; the last one decides.
        steps: of training.
        batch: prompts of a step.
        starts: initialisations of each training run, of which the best after a tenth of the steps goes on.
        rate: of Adam, after a warm-up of a fortieth of the steps, to 0 along a cosine.
        judged: prompts to judge on.
        seeds: training runs of each contender.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    dim: int = 5
    length: int = 40
    noise: float = 0.1
    correlation: float = 0.5
    task_sizes: tuple[int, int] = (3, 4)
    lengths: tuple[int, ...] = (20, 80, 160, 320)
    steps: int = 4000
    batch: int = 256
    starts: int = 4
    rate: float = 1e-2
    judged: int = 8000
    seeds: int = 2
    minutes: float = 8.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "dim", "length", "steps", "batch", "starts", "judged", "seeds")
        check_rates((self.rate,))
        check_minutes(self.minutes)
        if not self.lengths or min(self.lengths) < 1 or max(self.lengths) <= self.length:
            raise InvalidInput(
                f"lengths must be at least 1 and one of them above length={self.length}, got {self.lengths}"
            )
        self.two_tasks()
        self.correlated()

    def plain(self) -> Regression:
        """Independent covariates and one task: what the claim is about."""
        return Regression(self.dim, self.noise)

    def correlated(self) -> Regression:
        """Covariates that are not independent."""
        return Regression(self.dim, self.noise, correlation=self.correlation)

    def two_tasks(self) -> Regression:
        """Two tasks that share some covariates."""
        return Regression(self.dim, self.noise, tasks=tasks_in_turn(self.dim, self.task_sizes))
