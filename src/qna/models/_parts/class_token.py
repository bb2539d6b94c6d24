"""Classes read off one token, which attends a map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor, nn

from qna.models._parts.sized import SizedHierarchy
from qna.parts.attend import attend
from qna.parts.linear import apply_linear

# what has the classifier read the class token
CLASS_POOLS = ("avg", "gap")

Module = TypeVar("Module", bound=nn.Module)


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

    def read_by(self, make: Callable[[], nn.Module], norm: nn.Module) -> None:
        """Let what `make` makes, (B, H, W, C) -> (B, 1, 1, C), make the token where the pooling is "avg"."""
        # None where a network is cut before it
        self._make_token: Callable[[], nn.Module] | None = make
        # registered, so that what comes later takes its place in the order of parts
        self.register_module("class_block", self._new_token())
        # after the class attention, not before it
        self.last_norm = norm

    def draw_part(self, module: nn.Module) -> None:
        """Draw the weights of a part that comes later, where it does not draw them as the network does."""
        return

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The map of `forward_features` -> logits, or the class token (B, C) where `pre_logits`."""
        # of one position, so that its mean is itself
        read = x if self.class_block is None else self.class_block(x)
        # an output without pooling is what `forward_features` gives
        return super().forward_head(self.last_norm(read) if self.global_pool else x, pre_logits=pre_logits)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new linear layer for `num_classes`, and a new pooling if one is named.

        The class attention is the pooling "avg": it comes and goes with it.
        """
        super().reset_classifier(num_classes, global_pool)
        if self.global_pool not in CLASS_POOLS:
            self.class_block = None
        elif self.class_block is None:
            self.class_block = self.as_here(self._new_token())

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """As `Hierarchy`; the class token goes with the head."""
        stages = len(self.stages)
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if prune_head or len(self.stages) < stages:
            self._make_token = self.class_block = None
            self.last_norm = nn.Identity()
        return taken

    @property
    def cut_before_token(self) -> bool:
        """Whether `prune_intermediate_layers` took the token and what reads it."""
        return self._make_token is None

    def as_here(self, module: Module | None) -> Module | None:
        """A new part with initial weights, on the device, in the dtype and the mode of the others."""
        if module is None:
            return None
        self.draw_part(module)
        at = next(self.parameters())
        return module.to(device=at.device, dtype=at.dtype).train(self.training)

    def _new_token(self) -> nn.Module | None:
        if self._make_token is None or self.global_pool not in CLASS_POOLS:
            return None
        return self._make_token()
