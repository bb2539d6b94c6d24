"""Focal modulation: first gather context around each position, then let its query meet what was gathered."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.about import About
from qna._core.errors import InvalidInput
from qna.mixers.row import Example, MixerRow, Traits
from qna.parts.image_view import as_image
from qna.parts.linear import apply_linear
from qna.parts.precision import as_they_are


class FocalModulation2d(nn.Module):
    """Focal modulation (Yang et al., NeurIPS 2022, equations 4 to 6) of maps of any height and width.

    With query q(x), context Z_0 = z(x) and gates G(x), all linear, the levels follow one another::

        Z_l = GELU(DWConv_l(Z_(l-1)))                  l = 1 .. L
        m   = sum_l G_l Z_l + G_(L+1) GELU(mean of Z_L over the map)
        y   = out(q(x) * h(m))

    Level l sees a window of ``1 + sum_(i <= l) (k_i - 1)`` positions per axis; the last term sees the map.
    With n positions and C channels it costs ``n C (4 C + L + 1 + sum_l k_l^2)`` multiply-adds.

    Args:
        dim: channels of input and output.
        kernel_sizes: k_l, an odd number for each level; none leaves the mean of the map alone.
        normalize_modulator: divide m by the number of its terms, L + 1.
        norm: LayerNorm between the product and the output projection.

    Raises:
        InvalidInput: `dim` is not positive, or a kernel size is not odd and positive.
    """

    def __init__(
        self,
        dim: int,
        *,
        kernel_sizes: Sequence[int] = (3, 5),
        normalize_modulator: bool = False,
        norm: bool = False,
    ):
        super().__init__()
        checks.positive(type(self).__name__, dim=dim)
        self.dim = self.out_dim = dim
        sizes = kernel_sizes if isinstance(kernel_sizes, Sequence) else (None,)
        if not all(isinstance(k, int) and k > 0 and k % 2 for k in sizes):
            raise InvalidInput(
                f"FocalModulation2d: kernel_sizes must be odd and positive, one a level, got {kernel_sizes!r}"
            )
        self.kernel_sizes = tuple(kernel_sizes)
        self.normalize_modulator = normalize_modulator
        # two projections, not one of three parts: the convolutions then read the context as it lies
        self.query_gates = nn.Linear(dim, dim + len(self.kernel_sizes) + 1)
        self.context = nn.Linear(dim, dim)
        # the trap of copies in the wild: these convolutions have neither bias nor norm
        for level, k in enumerate(self.kernel_sizes, start=1):
            # no list of modules, which would have a name and never be called
            convolution = nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim, bias=False)
            self.add_module(f"level{level}", convolution)
        self.modulator = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()
        self.out = nn.Linear(dim, dim)
        # the authors' modulator is a convolution of one tap, which begins as torch makes it; so does this one
        for linear in (self.query_gates, self.context, self.out):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H, W, dim)."""
        checks.channels_last_map(type(self).__name__, x, self.dim, 2)
        with as_they_are(x.device):
            return self._modulate(x)

    def _modulate(self, x: Tensor) -> Tensor:
        # gates are what the projection gives, without an activation
        query, gates = apply_linear(self.query_gates, x).split([self.dim, len(self.kernel_sizes) + 1], -1)
        if self.normalize_modulator:
            gates = gates / gates.shape[-1]
        # nothing is named that would then live longer than it is needed
        return apply_linear(
            self.out,
            self.norm(
                query * apply_linear(self.modulator, self._gather(apply_linear(self.context, x), gates))
            ),
        )

    @property
    def levels(self) -> list[nn.Conv2d]:
        """The convolutions, in order; as modules they are called level1, level2 and so on."""
        return [self.get_submodule(f"level{n}") for n in range(1, len(self.kernel_sizes) + 1)]  # type: ignore[misc]

    def _gather(self, context: Tensor, gates: Tensor) -> Tensor:
        """The gated sum of all levels, (B, H, W, dim)."""
        *of_levels, last = gates.split(1, -1)
        gathered = None
        for level, gate in zip(self.levels, of_levels, strict=True):
            context = F.gelu(level(as_image(context)).movedim(1, -1))
            gathered = context * gate if gathered is None else torch.addcmul(gathered, context, gate)
        # of the last level, not of the input
        whole = F.gelu(context.mean((1, 2), keepdim=True))
        return whole * last if gathered is None else torch.addcmul(gathered, whole, last)

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for a map of `size` = (B, H, W, dim): linear maps and convolutions alone."""
        taps = sum(k * k for k in self.kernel_sizes)
        return math.prod(size) * (4 * self.dim + len(self.kernel_sizes) + 1 + taps)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the input: query, gates, and in a level its context before, convolved and after.

        From the second level on also what was gathered.
        """
        levels = len(self.kernel_sizes)
        gates = (levels + 1) * (2 if self.normalize_modulator else 1)
        return math.prod(size[:-1]) * ((3 + min(levels, 2)) * self.dim + gates)

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"{self.dim}, normalize_modulator={self.normalize_modulator}"


ROW = MixerRow(
    FocalModulation2d,
    About(
        title="Focal Modulation Networks",
        authors="Yang, Li, Dai et al.",
        venue="NeurIPS 2022",
        arxiv="2203.11926",
        read="the authors' code, microsoft/FocalNet at e8514bd (MIT)",
        differs="query with gates, and context, are two projections of the same rows where the authors have "
        "one, so that no map is copied for the convolutions",
        status="exact",
    ),
    Example((5, 7), {"kernel_sizes": (3, 5), "normalize_modulator": True, "norm": True}),
    Traits(2),
    {
        "compiles_with_inductor_and_dynamic_sizes": "inductor (torch 2.13) cannot order the symbolic strides "
        "of the convolutions' maps"
    },
)
