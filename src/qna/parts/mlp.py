"""The two linear maps that follow a mixer in a block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna.parts.activation import apply_gelu
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear


class ChannelMlp(nn.Module):
    """Two linear maps of the channels with a GELU between them, in its tanh form (Flax's) or exact.

    `drop` is the dropout in training, behind the GELU and behind the second map.
    """

    def __init__(self, dim: int, hidden: int, *, approximate: str = "tanh", drop: float = 0.0):
        super().__init__()
        checks.rate(type(self).__name__, drop=drop)
        # no module: most have none, and one that is called twice has no one output
        self.drop = drop
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU(approximate=approximate)
        self.fc2 = nn.Linear(hidden, dim)
        init_linear_(self.fc1)
        init_linear_(self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        if not (self.drop and self.training):
            return apply_linear(self.fc2, apply_gelu(self.act, apply_linear(self.fc1, x)))
        x = F.dropout(apply_gelu(self.act, apply_linear(self.fc1, x)), self.drop)
        return F.dropout(apply_linear(self.fc2, x), self.drop)
