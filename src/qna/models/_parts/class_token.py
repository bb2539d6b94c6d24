"""Classes read off one token, which attends a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from qna.models._parts.sized import SizedHierarchy
from qna.parts.attend import attend
from qna.parts.linear import apply_linear


class ClassAttention(nn.Module):
    """Attention of a class token to itself and to all positions of a map.

    Args:
        dim: channels.
        num_heads: heads; divides `dim`.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 1 + n, C), of which the first is the class's -> (B, 1, C)."""
        query = apply_linear(self.q, tokens[:, :1]).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        both = apply_linear(self.kv, tokens).unflatten(-1, (2, self.num_heads, -1))
        key, value = both.permute(2, 0, 3, 1, 4).unbind(0)
        return apply_linear(self.out, attend(query, key, value).transpose(1, 2).flatten(2))

    def macs(self, size: Sequence[int]) -> int:
        """Multiply-adds for tokens of `size` = (B, 1 + n, C): linear maps, and what one query attends."""
        batch, tokens, dim = size
        return batch * (2 * dim**2 + 2 * tokens * dim**2 + 2 * tokens * dim)

    def held(self, size: Sequence[int]) -> int:
        """Elements beside the tokens, of `size` = (B, 1 + n, C): keys and values, the query, what it gets."""
        batch, tokens, dim = size
        return batch * (2 * tokens + 2) * dim


class TokenHierarchy(SizedHierarchy):
    """A `SizedHierarchy` whose classifier reads a token in the place of the mean of the last map ("avg").

    The last stage has no norm; the token has one, and so has a map that another pooling reads.
    """

    class_block: nn.Module | None
    last_norm: nn.Module

    def read_by(self, block: nn.Module, norm: nn.Module) -> None:
        """Let `block`, (B, H, W, C) -> (B, 1, 1, C), make the token, where the pooling is not another."""
        self.class_block = block if self.global_pool in ("avg", "gap") else None
        # after the class attention, not before it
        self.last_norm = norm

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The map of `forward_features` -> logits, or the class token (B, C) where `pre_logits`."""
        if self.class_block is not None and self.global_pool in ("avg", "gap"):
            # of one position, so that its mean is itself
            return super().forward_head(self.last_norm(self.class_block(x)), pre_logits=pre_logits)
        # an output without pooling is what `forward_features` gives
        return super().forward_head(self.last_norm(x) if self.global_pool else x, pre_logits=pre_logits)

    def prune_intermediate_layers(self, *arguments: Any, **named: Any) -> list[int]:
        """As `Hierarchy`; the class token goes with the head."""
        taken = super().prune_intermediate_layers(*arguments, **named)
        if not self.num_classes:
            self.class_block = None
            self.last_norm = nn.Identity()
        return taken
