"""Stochastic depth."""

from __future__ import annotations

from torch import Tensor, nn

from qna._core import checks


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): branches of some images are left out.

    In training, each image's branch is zero with probability `rate`, and divided by ``1 - rate`` where kept.

    Raises:
        InvalidInput: `rate` is below 0, or 1 or more.
    """

    def __init__(self, rate: float):
        super().__init__()
        checks.rate(type(self).__name__, rate=rate)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training or self.rate == 0:
            return x
        keep = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * (keep / (1 - self.rate))

    def extra_repr(self) -> str:
        """The rate."""
        return f"{self.rate:.3g}"
