"""Gates on what the heads of an attention make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import check_choice

# where gates stand: G1, G2, G3, G4 and G5 of the paper
Position = Literal["output", "value", "key", "query", "projected"]
POSITIONS = get_args(Position)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    # never below a half, so that little is closed
    "ns-sigmoid": lambda x: 0.5 + 0.5 * torch.sigmoid(x),
}


class HeadGate(nn.Module):
    """``y * f(x W)``, or ``y + f(x W)``: gates computed from the attention's input, per head or per channel.

    Qiu et al., "Gated Attention for Large Language Models", NeurIPS 2025 (arXiv 2505.06708). Multiplied, f is
    a sigmoid by default, added a SiLU. It takes N C w multiply-adds for N positions, with w gates each.

    Args:
        dim: channels of the attention's input.
        heads: of y.
        head_dim: channels per head of y.
        per: "channel", a gate for each channel, or "head".
        shared: whether all heads have the same gates.
        add: added and not multiplied.
        activation: of `ACTIVATIONS`; None for the default.
        depends: whether gates are computed from the input; else they are parameters, zero at first.
        bias: what the gates' bias begins with; None for none, as published.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        *,
        per: str = "channel",
        shared: bool = False,
        add: bool = False,
        activation: str | None = None,
        depends: bool = True,
        bias: float | None = None,
    ):
        super().__init__()
        check_choice("per", per, ("channel", "head"))
        name = activation or ("silu" if add else "sigmoid")
        self.activation = check_choice("activation", name, ACTIVATIONS)
        self.add = add
        # gates of a position, which broadcast over heads and channels
        self.shape = (1 if shared else heads, head_dim if per == "channel" else 1)
        count = self.shape[0] * self.shape[1]
        if depends:
            self.gate = nn.Linear(dim, count, bias=bias is not None)
            nn.init.trunc_normal_(self.gate.weight, std=0.02)
            if bias is not None:
                nn.init.constant_(self.gate.bias, bias)
        else:
            self.gate = nn.Parameter(torch.full((count,), bias or 0.0))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Gate the heads' output.

        Args:
            x: (B, N, C), what queries are made of.
            y: (B, N, heads, head_dim).

        Returns:
            the same shape as `y`.
        """
        scores = self.gate(x) if isinstance(self.gate, nn.Linear) else self.gate
        gates = ACTIVATIONS[self.activation](scores).unflatten(-1, self.shape)
        return y + gates if self.add else y * gates
