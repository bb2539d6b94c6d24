"""A gate on what a decoder takes over from its encoder: what is passed on depends on both."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core import checks
from qna._core.errors import InvalidInput, check_choice

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
# Keras's default, which the authors' weights were trained with; torch's is 1e-5
KERAS_EPS = 1e-3


class AttentionGate(nn.Module):
    """Attention gate of a skip connection, of images (2 axes) or volumes (3).

    With the skip x and the gating signal g, which a decoder has brought to x's size::

        G, X = BN(W_g g + b_g), BN(W_x x + b_x)                       hidden channels each
        psi  = sigmoid(BN(w ReLU([G, X]) + b))                        "concatenated"
        psi  = sigmoid(BN(w ReLU(G + X) + b))                         "added"
        y    = psi x                                                  one psi for all channels of a position

    "concatenated" is AGUNet's (Bouget et al., Front. Radiol. 2021), "added" that of Attention U-Net (Oktay et
    al., MIDL 2018), as MONAI has it. With n channels of both and n / 2 hidden ones a gate has
    ``n^2 + 4 n + 3`` parameters, or ``n^2 + 3.5 n + 3``, and costs ``n^2 + 1.5 n`` or ``n^2 + n``
    multiply-adds a position.

    Args:
        axes: space axes, 2 or 3.
        dim: channels of the skip.
        gating_dim: channels of the gating signal; None for as many.
        hidden: channels in which both are joined; None for half of the skip's.
        join: how.
        eps: of the norms; Keras's for the authors' weights.

    Raises:
        InvalidInput: there are no such axes or a size is not positive; in a call, a gating signal that has
            not the skip's size, or wrong channels.
        UnknownName: `join` is none of the two.
    """

    def __init__(
        self,
        axes: int,
        dim: int,
        *,
        gating_dim: int | None = None,
        hidden: int | None = None,
        join: Literal["concatenated", "added"] = "concatenated",
        eps: float = KERAS_EPS,
    ):
        super().__init__()
        if axes not in CONVOLUTIONS:
            raise InvalidInput(f"AttentionGate: axes must be 2 or 3, got {axes!r}")
        gating_dim = dim if gating_dim is None else gating_dim
        hidden = max(1, dim // 2) if hidden is None else hidden
        checks.positive("AttentionGate", dim=dim, gating_dim=gating_dim, hidden=hidden)
        self.axes, self.dim, self.gating_dim = axes, dim, gating_dim
        self.join = check_choice("join", join, ("concatenated", "added"))
        convolution, norm = CONVOLUTIONS[axes], NORMS[axes]
        self.gating = nn.Sequential(convolution(gating_dim, hidden, 1), norm(hidden, eps=eps))
        self.skip = nn.Sequential(convolution(dim, hidden, 1), norm(hidden, eps=eps))
        both = 2 * hidden if join == "concatenated" else hidden
        self.psi = nn.Sequential(convolution(both, 1, 1), norm(1, eps=eps))

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """(B, dim, *space) and (B, gating_dim, *space) -> (B, dim, *space)."""
        return skip * self.gate_map(skip, gating)

    def gate_map(self, skip: Tensor, gating: Tensor) -> Tensor:
        """psi, what of the skip passes: (B, 1, *space), in [0, 1]."""
        self._check(skip, gating)
        g, x = self.gating(gating), self.skip(skip)
        joined = torch.cat((g, x), 1) if self.join == "concatenated" else g + x
        return self.psi(F.relu(joined)).sigmoid()

    def _check(self, skip: Tensor, gating: Tensor) -> None:
        for what, given, dim in (("skip", skip, self.dim), ("gating signal", gating, self.gating_dim)):
            if given.ndim != self.axes + 2 or given.shape[1] != dim:
                raise InvalidInput(
                    f"AttentionGate: the {what} must have {self.axes} axes behind batch and {dim} channels, "
                    f"got {tuple(given.shape)}"
                )
        if skip.shape[2:] != gating.shape[2:]:
            raise InvalidInput(
                f"AttentionGate: bring the gating signal to the skip's size {tuple(skip.shape[2:])} first; "
                f"it has {tuple(gating.shape[2:])}"
            )

    def extra_repr(self) -> str:
        """The arguments that the printed children do not show."""
        return f"join={self.join!r}"
