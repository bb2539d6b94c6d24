"""Kar3: steps of equal size for every weight, along three signs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from qna._core.errors import InvalidInput

# of gradients, in the order of their betas
MEANS = ("fast_mean", "slow_mean")


class Kar3(torch.optim.Optimizer):
    """The optimiser that Terminator is published with; no weight decay.

    With the gradient g and two running means of it, m and n, a step is::

        p <- p - lr (sign(g) + sign(m) + sign(n))
        m <- b m + (1 - b) g,   n <- c n + (1 - c) g

    so that the means of a step are those before it, and of the first step 0. A weight moves by 3 lr at most.

    Args:
        params: weights, or groups of them.
        lr: the rate; the author's is 1.215e-3 for CIFAR-10, at batches of 64.
        betas: (b, c).

    Raises:
        InvalidInput: the rate is negative or not finite, or `betas` are not two numbers in [0, 1).
    """

    def __init__(self, params: Iterable[Any], lr: float = 1.215e-3, betas: tuple[float, float] = (0.5, 0.95)):
        if not 0 <= lr < math.inf or len(betas) != len(MEANS) or not all(0 <= beta < 1 for beta in betas):
            raise InvalidInput(
                f"Kar3: lr must be at least 0 and finite, and betas two numbers in [0, 1), got lr={lr}, "
                f"betas={betas}"
            )
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; `closure` computes the loss again, and it is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update({name: torch.zeros_like(p) for name in MEANS})
                means = [state[name] for name in MEANS]
                p.sub_(sum((mean.sign() for mean in means), p.grad.sign()), alpha=group["lr"])
                for mean, beta in zip(means, group["betas"], strict=True):
                    mean.lerp_(p.grad, 1 - beta)
        return loss
