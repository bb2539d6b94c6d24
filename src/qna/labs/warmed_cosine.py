"""The learning rate of laboratories that train by steps: it rises in a line, then falls along a cosine."""

from __future__ import annotations

import math

import torch


def set_rate(
    optimizer: torch.optim.Optimizer, highest: float, step: int, steps: int, *, warm: int = 1
) -> None:
    """Give a step its rate: ``highest min(1, (step + 1) / warm) (1 + cos(pi step / steps)) / 2``.

    Args:
        optimizer: all of whose groups get it.
        highest: what it would be without warm-up at the first step.
        step: from 0.
        steps: of all training, at whose end it is 0.
        warm: steps in which it rises; one or fewer for none.
    """
    warmed = highest * min(1, (step + 1) / max(1, warm))
    for group in optimizer.param_groups:
        group["lr"] = warmed * (1 + math.cos(math.pi * step / steps)) / 2
