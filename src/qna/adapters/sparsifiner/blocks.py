"""Blocks whose image tokens go where the class token attends them least: made zero, or taken out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna.adapters._parts.around import AroundBlock
from qna.adapters._parts.chosen_keys import largest


class PrunedBlock(AroundBlock):
    """timm's block, with `SparseAttention` in it, of a network that loses image tokens.

    Tokens go behind attention, by what the class token pays them in it, the mean over heads. Those that are
    made zero stay keys of the class token, with products and values of zero, as in the authors' code; those
    that are taken out are nobody's.

    Args:
        block: whose place it takes.
        prefix: tokens before the image's, which stay.
        left: image tokens that are there; None where none has gone yet.
        keep: how many of them stay here; None for all.
        drop: they are taken out, for which the block has to be told which tokens it gets.
    """

    attn: Any

    def __init__(self, block: Any, prefix: int, left: int | None, keep: int | None, *, drop: bool):
        super().__init__(block)
        self.drop = drop
        self.prefix = prefix
        self.left = left
        self.keep = keep

    @property
    def whole(self) -> bool:
        """Whether all tokens stay: in a teacher, and where predictors are fitted."""
        return self.attn.mask_predictor is None or self.attn.fits

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> the same, zero where a token is not there."""
        if attn_mask is not None or is_causal:
            raise InvalidInput("sparsifiner takes no mask of tokens")
        if self.whole:
            return self.with_mlp(self.with_attention(x, self.attn(self.norm1(x))))
        if self.drop:
            raise InvalidInput(
                "blocks of sparsifiner with drop_tokens are called together; leave gradient checkpointing "
                "and maps of single blocks out, or drop_tokens"
            )
        # zeros tell what went, so that nothing has to be handed on beside the tokens
        active = None if self.left is None else still_there(x[:, self.prefix :])
        attended, paid = self.attn.attend(self.norm1(x), active, left=self.left)
        x = self.with_mlp(self.with_attention(x, attended))
        if self.keep is not None:
            paid = paid[:, self.prefix :]
            paid = paid if active is None else paid.masked_fill(~active, float("-inf"))
            active = torch.zeros_like(paid, dtype=torch.bool).scatter_(
                1, largest(paid.detach(), self.keep), True
            )
        if active is None:
            return x
        return torch.cat([x[:, : self.prefix], x[:, self.prefix :].masked_fill(~active[..., None], 0.0)], 1)

    def shortened(self, x: Tensor, places: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, n, C) and which of the image's tokens these are -> the ones that stay, and which they are."""
        if self.whole:
            return self(x), places
        attended, paid = self.attn.attend(self.norm1(x), places=places, left=self.left)
        x = self.with_attention(x, attended)
        if self.keep is not None:
            # in their old order; the MLP sees each token alone, so none that goes needs it
            order = largest(paid[:, self.prefix :].detach(), self.keep).sort(1).values
            image = x[:, self.prefix :].gather(1, order[..., None].expand(-1, -1, x.shape[-1]))
            x = torch.cat([x[:, : self.prefix], image], 1)
            places = order if places is None else places.gather(1, order)
        return self.with_mlp(x), places


class ShorteningBlocks(nn.Sequential):
    """The blocks of a network that takes tokens out, which are told which tokens they get.

    Attributes:
        places: int64 (B, M), which image tokens the last call left; None for all.
    """

    places: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        """(B, N, C) -> (B, n, C)."""
        x, places = input, None
        for block in self:
            x, places = block.shortened(x, places) if isinstance(block, PrunedBlock) else (block(x), places)
        self.places = places
        return x


def still_there(image: Tensor) -> Tensor:
    """Which image tokens (B, M, C) are not zero, (B, M)."""
    return (image != 0).any(-1)
