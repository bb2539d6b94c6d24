"""Gates on what the heads of an attention make."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.errors import InvalidInput, check_choice

# where gates stand: G1, G2, G3, G4 and G5 of the paper
Position = Literal["output", "value", "key", "query", "projected"]
POSITIONS = get_args(Position)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    # never below a half, so that little is closed
    "ns-sigmoid": lambda x: 0.5 + 0.5 * torch.sigmoid(x),
}


@dataclass(frozen=True)
class Gates:
    """Where gates stand and what they are; see `HeadGate`.

    Attributes:
        position: after the heads' output (G1 of the paper), on "value" (G2), "key" (G3) or "query" (G4), or
            after the projection, "projected" (G5).
        per: a gate for each "channel" of a head, or one for each "head".
        shared: all heads have the same gates.
        add: gates are added, not multiplied.
        activation: "sigmoid", "silu" or "ns-sigmoid"; None for sigmoid, and silu where they are added.
        depends: computed from the input; else they are parameters.
        bias: what their bias begins with; None for none, as published.
    """

    position: Position = "output"
    per: Literal["channel", "head"] = "channel"
    shared: bool = False
    add: bool = False
    activation: str | None = None
    depends: bool = True
    bias: float | None = None

    def __post_init__(self):
        check_choice("position", self.position, POSITIONS)
        check_choice("per", self.per, ("channel", "head"))
        if self.activation is not None:
            check_choice("activation", self.activation, ACTIVATIONS)

    def options(self) -> dict[str, Any]:
        """Arguments of `HeadGate`."""
        return {f.name: getattr(self, f.name) for f in fields(Gates) if f.name != "position"}

    def in_words(self) -> str:
        """What differs from the defaults, in a line."""
        given = [f for f in fields(Gates) if getattr(self, f.name) != f.default]
        return f"Gates({', '.join(f'{f.name}={getattr(self, f.name)}' for f in given)})"


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
        # by what it is not: tools put modules of their own in the place of a linear map
        scores = self.gate if isinstance(self.gate, Tensor) else self.gate(x)
        gates = ACTIVATIONS[self.activation](scores).unflatten(-1, self.shape)
        return y + gates if self.add else y * gates

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds of the gates of a map of `size` = (B, *space, dim)."""
        return math.prod(size) * self.gate.out_features if isinstance(self.gate, nn.Linear) else 0


class GatedHeads:
    """What a mixer of heads inherits, beside `nn.Module`, so that a gate can stand on what its heads make.

    A gate is any module (x, y) -> as y, with x (B, *space, dim) what the mixer was called with and y (B,
    *space, heads, head dim) what its heads made of it, before anything joins them: `HeadGate`, or
    `qna.parts.head_router.RoutedHeads`. What the mixer says of its cost and of what it holds is without the
    gate's.
    """

    num_heads: int
    _modules: dict[str, nn.Module | None]

    @property
    def head_gate(self) -> nn.Module | None:
        """The gate; None where there is none."""
        return self._modules.get("head_gate")

    def why_no_head_gate(self) -> str:
        """Why gates have no place in this mixer, a sentence; empty where they have."""
        return ""

    def gate_heads(self, gate: nn.Module) -> None:
        """Put a gate on the heads, under the name `head_gate`; one that is there already is replaced.

        Raises:
            InvalidInput: where it has no place.
        """
        if why := self.why_no_head_gate():
            raise InvalidInput(f"{type(self).__name__} takes no gates on its heads: {why}")
        self._modules["head_gate"] = gate

    def _gated(self, x: Tensor, y: Tensor, *, heads_last: bool = False) -> Tensor:
        """What the heads made, channel after channel of head after head, through the gate: as `y`.

        Args:
            x: (B, *space, dim), the mixer's input.
            y: (B, *space, heads * head dim).
            heads_last: channel after channel, of each all heads.
        """
        gate = self.head_gate
        if gate is None:
            return y
        if heads_last:
            heads = y.unflatten(-1, (-1, self.num_heads)).transpose(-1, -2)
            return gate(x, heads).transpose(-1, -2).flatten(-2)
        return gate(x, y.unflatten(-1, (self.num_heads, -1))).flatten(-2)
