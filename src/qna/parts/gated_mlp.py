"""The gated MLP of language models."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear


class GatedMlp(nn.Module):
    """``down(SiLU(gate(x)) * up(x))``, without biases: SwiGLU (Shazeer, arXiv 2002.05202, equation 6).

    It costs 3 C h multiply-adds for each position.

    Args:
        dim: channels C of input and output.
        hidden: channels h between the maps.

    Raises:
        InvalidInput: a size is not positive.
    """

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        checks.positive(type(self).__name__, dim=dim, hidden=hidden)
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)
        for layer in (self.gate, self.up, self.down):
            init_linear_(layer)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return apply_linear(self.down, F.silu(apply_linear(self.gate, x)) * apply_linear(self.up, x))
