"""What GC ViT is made of beside its attention: what makes and halves maps, and stages of one query."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna.mixers import GlobalContextAttention2d
from qna.mixers.global_context import GlobalQuery
from qna.models._parts.block import MixerBlock
from qna.models._parts.hierarchy import Stage
from qna.models._parts.recompute import recomputed
from qna.models._parts.scripting import NotScripted
from qna.models._parts.shortcut import even_rows
from qna.models._parts.stem import check_images
from qna.parts.depthwise_residual import DepthwiseResidual
from qna.parts.image_view import on_image
from qna.parts.rows import PositionRows

# of all norms of these networks
NORM_EPS = 1e-5


class ResidualHalving(nn.Module):
    """A norm, a `DepthwiseResidual`, a convolution of 3 x 3 at stride 2 without bias, and a norm.

    Args:
        dim: channels of the input.
        out_dim: channels of the output.
    """

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.residual = DepthwiseResidual(dim)
        self.conv = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.LayerNorm(out_dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, ceil(H / 2), ceil(W / 2), out_dim)."""
        return self.norm2(on_image(self.conv, self.residual(self.norm1(x))))

    def position_step(self, x: Tensor) -> tuple[PositionRows, PositionRows]:
        """Which positions each is made of, all alike; what the residual mixes is a position's own."""
        rows = even_rows(x, 3, 2, 1)
        return rows, rows


class ResidualStem(NotScripted, nn.Module):
    """A convolution of 3 x 3 at stride 2, and a `ResidualHalving` of as many channels."""

    reduction = 4

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, dim, 3, stride=2, padding=1)
        self.halving = ResidualHalving(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, ceil(ceil(H / 2) / 2), ceil(ceil(W / 2) / 2), dim)."""
        check_images(x, self.conv)
        return self.halving(self.conv(x).permute(0, 2, 3, 1).contiguous())


class GlobalContextBlock(MixerBlock):
    """A `MixerBlock` whose mixer, a `GlobalContextAttention2d`, is given the query of its stage."""

    def forward(self, x: Tensor, query: Tensor) -> Tensor:  # type: ignore[override]
        """(B, H, W, C) and the query (B, h, w, C) -> (B, H, W, C)."""
        x = self.shortcut(x) + self.drop_path1(self.scale1(self.mixer(self.norm1(x), query)))
        return x + self.drop_path2(self.scale2(self.mlp(self.norm2(x))))

    def position_step(  # type: ignore[override]
        self, x: Tensor, query: Tensor
    ) -> tuple[PositionRows, PositionRows | None]:
        """Where each position looks in its window; of what the query is made is left out."""
        if not isinstance(self.mixer, GlobalContextAttention2d):
            raise InvalidInput(f"{type(self.mixer).__name__} takes no query of a stage")
        return self.mixer.attention_rows(self.norm1(x), query), None


class GlobalContextStage(Stage):
    """What halves the map, a `GlobalQuery` of it, and blocks; the query is one for all of them."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C')."""
        x: Any = input
        query: Any = None
        for layer in self:
            if isinstance(layer, GlobalQuery):
                query = self._through(layer, x)
            elif isinstance(layer, GlobalContextBlock):
                x = self._through(layer, x, query)
            else:
                x = self._through(layer, x)
        return x

    def _through(self, layer: nn.Module, *inputs: Tensor) -> Any:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return recomputed(layer, *inputs)
        return layer(*inputs)
