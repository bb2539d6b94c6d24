"""TAP and ADL: tokens that attend averages of their neighbours, and a loss on attention that is all alike."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from qna._core.checks import not_negative, positive
from qna._core.errors import InvalidInput
from qna.adapters._parts.around import AroundAttention, AroundBlock
from qna.adapters._parts.attention import attended, finished, projected, weights_of
from qna.adapters._parts.vit import blocks_of, chosen_blocks
from qna.adapters.row import Adapter, AdapterRow
from qna.models.fan import TAP_FAN_FAMILY
from qna.parts.losses import LossOutlet, ReturnLosses
from qna.parts.recompute import averages_kept, recomputing
from qna.parts.token_pool import TokenAwarePool2d, attention_diversification


@dataclass(frozen=True)
class TAPADL(Adapter):
    """Robust token attention in a plain vision transformer (Guo, Stutz, Schiele, ICCV 2023).

    TAP: the attention branch reads averaged tokens, ``x + attention(norm(TAP(x)))``, while the skip path
        stays as it was; see `qna.parts.token_pool.TokenAwarePool2d`. Class, distillation and register tokens
        are not averaged.
    ADL: in training the network returns `WithLosses` with "attention_diversification", which is `diversity`
    times the mean over the layers of `qna.parts.token_pool.attention_diversification`. Attention forms its
    weights for it, map x map; in evaluation it does not.

    Attributes:
        scales: branches of TAP, of dilation 0 to scales - 1; 1 for none.
        diversity: weight of the loss; 0 for none.
        threshold: of the loss, in units of even attention.
        layers: blocks that get them; None for all.
    """

    name: ClassVar[str] = "tap_adl"

    scales: int = 4
    diversity: float = 1.0
    threshold: float = 2.0
    layers: tuple[int, ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        positive(self.name, scales=self.scales)
        not_negative(self.name, diversity=self.diversity, threshold=self.threshold)

    def transform(self, network: Any) -> list[str]:
        """Put a block that averages, or attention that is judged, into each of `layers`."""
        blocks = blocks_of(network, self.name)
        chosen = chosen_blocks(self.layers, len(blocks), self.name)
        grid, prefix = network.patch_embed.grid_size, network.num_prefix_tokens
        if self.scales > 1 and not network.patch_embed.strict_img_size:
            raise InvalidInput("tap_adl needs tokens of one grid; make the network without dynamic_img_size")
        outlets = []
        for i in chosen:
            block = blocks[i]
            if self.diversity:
                block.attn = JudgedAttention(block.attn, self.threshold).train(block.training)
                outlets.append(block.attn.outlet)
            if self.scales > 1:
                weight = block.norm1.weight
                pool = TokenAwarePool2d(len(weight), self.scales)
                pool.to(device=weight.device, dtype=weight.dtype)
                network.blocks[i] = PoolingBlock(block, pool.train(block.training), grid, prefix)
        if outlets:
            ReturnLosses("attention_diversification", self.diversity, outlets).put_into(network)
        return []


class PoolingBlock(AroundBlock):
    """timm's block whose attention reads averaged tokens; all other parts are the block's own.

    Args:
        block: whose place it takes.
        pool: (B, H, W, C) -> the same.
        grid: rows and columns of image tokens.
        prefix: tokens before the image's, which are not averaged.
    """

    def __init__(self, block: Any, pool: nn.Module, grid: tuple[int, int], prefix: int):
        super().__init__(block)
        self.pool = pool
        self.grid = grid
        self.prefix = prefix

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> the same."""
        image = x[:, self.prefix :]
        if image.shape[1] != self.grid[0] * self.grid[1]:
            raise InvalidInput(
                f"tap_adl was put around a grid of {self.grid[0]} x {self.grid[1]} tokens, got "
                f"{image.shape[1]}; set the network's input size before the adapter is applied"
            )
        # timm checkpoints blocks without regard to batch norms
        with averages_kept(self.pool) if recomputing() else nullcontext():
            pooled = self.pool(image.unflatten(1, self.grid)).flatten(1, 2)
        read = torch.cat([x[:, : self.prefix], pooled], 1) if self.prefix else pooled
        mixed = self.attn(self.norm1(read), attn_mask=attn_mask, is_causal=is_causal)
        return self.with_mlp(self.with_attention(x, mixed))


class JudgedAttention(AroundAttention):
    """timm's attention that leaves a loss on its weights in training; all parts are the attention's own.

    Args:
        attention: whose place it takes.
        threshold: of the loss.
    """

    def __init__(self, attention: Any, threshold: float):
        super().__init__(attention)
        self.threshold = threshold
        self.outlet = LossOutlet()

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> the same."""
        if attn_mask is not None or is_causal:
            raise InvalidInput("tap_adl takes no mask of tokens")
        q, k, v = projected(self, x)
        if not self.training:
            return finished(self, attended(self, q, k, v), x)
        weights = weights_of(self, q, k)
        self.outlet.leave(attention_diversification(weights, self.threshold))
        return finished(self, weights @ v, x)


ROW = AdapterRow(
    TAPADL,
    replace(
        TAP_FAN_FAMILY.about,
        differs="the authors build FAN and RVT with it; here it is put around any plain vision transformer, "
        "whose class token is not averaged. Their mean over L layers divides by L + 1e-6",
    ),
    "attention reads tokens averaged over neighbourhoods of their own choice, and a loss keeps it from "
    "being alike",
    {"scales": 3},
    frozenset({"vit", "distilled", "registers"}),
)
