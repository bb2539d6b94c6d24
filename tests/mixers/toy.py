"""The smallest mixer that meets the contract: what a new one costs."""

import math

from torch import nn

from qna._core import checks
from qna._core.about import About
from qna.mixers.row import Example, MixerRow, Traits


class Shift1d(nn.Module):
    """Each position gets a linear map of the one before it; (B, N, dim) -> (B, N, dim)."""

    def __init__(self, dim, *, steps=1):
        super().__init__()
        self.dim = self.out_dim = dim
        self.steps = steps
        self.map = nn.Linear(dim, dim)

    def forward(self, x):
        checks.channels_last_map("Shift1d", x, self.dim, 1)
        return self.map(x).roll(self.steps, 1)

    def macs(self, size):
        return math.prod(size) * self.dim

    def held(self, size):
        return 2 * math.prod(size)


ROW = MixerRow(
    Shift1d,
    About("A toy", "Nobody", "nowhere", None, read="nothing", differs="", status="after"),
    Example((9,)),
    Traits(1),
)
