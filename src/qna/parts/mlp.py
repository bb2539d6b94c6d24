"""The two linear maps that follow a mixer in a block."""

from __future__ import annotations

from torch import Tensor, nn

from qna.parts.activation import apply_gelu
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear


class ChannelMlp(nn.Module):
    """Two linear maps of the channels with a GELU between them, in its tanh form (Flax's) or exact."""

    def __init__(self, dim: int, hidden: int, *, approximate: str = "tanh"):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU(approximate=approximate)
        self.fc2 = nn.Linear(hidden, dim)
        init_linear_(self.fc1)
        init_linear_(self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return apply_linear(self.fc2, apply_gelu(self.act, apply_linear(self.fc1, x)))
