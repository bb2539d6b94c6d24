"""Plain torch, the oracle."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gelu(x: Tensor, tanh: bool) -> Tensor:
    """torch's own."""
    return F.gelu(x, approximate="tanh" if tanh else "none")
