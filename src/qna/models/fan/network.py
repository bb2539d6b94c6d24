"""FAN: attention of positions and of channels in one row of blocks, after convolutions."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from qna.models._parts.block import NORM_EPS
from qna.models._parts.class_token import TokenHierarchy
from qna.models._parts.hierarchy import Stage
from qna.models._parts.patches import NormedPatchStem
from qna.models._parts.sized import Parts
from qna.models.fan.blocks import ClassReader, ConvNeXtBlock, FullyAttentionalBlock, JudgedAttention2d
from qna.models.fan.maps import ConvolvedPatchStem, FourierPosition, PairedHalving
from qna.models.fan.variants import FANVariant
from qna.parts.losses import with_mean


class FullyAttentionalNetwork(TokenHierarchy):
    """A fully attentional network (Zhou et al., ICML 2022), with images of any height and width.

    Every block is a stage, of maps of a sixteenth of the image, and a hybrid has two stages of ConvNeXt
    before them, of a fourth and an eighth. Instead of the mean of the last map ("avg") the classifier reads a
    learned token that attends it.

    With ``scales`` the attention of positions reads pooled tokens (TAP, Guo et al., ICCV 2023), and with
    ``diversity`` above 0 the network gives, in training, `WithLosses` with "attention_diversification": that
    weight times the mean over the blocks of `qna.parts.token_pool.attention_diversification` (ADL). A block
    then forms its attention's weights, map x map.
    """

    @staticmethod
    def parts(variant: FANVariant, in_chans: int) -> Parts:
        """Its parts."""
        dim = variant.dim
        hybrid = bool(variant.conv_dims)
        stages = []
        for i, (channels, depth) in enumerate(zip(variant.conv_dims, variant.conv_depths, strict=True)):
            stage = Stage(*(ConvNeXtBlock(channels) for _ in range(depth)))
            if i:
                stage.insert(0, PairedHalving(variant.conv_dims[i - 1], channels, normed=True))
            stages.append(stage)
        for i in range(variant.depth):
            stage = Stage()
            if hybrid and not i:
                stage.append(PairedHalving(variant.conv_dims[-1], dim, normed=False))
                stage.append(FourierPosition(dim))
            block = FullyAttentionalBlock(
                dim,
                num_heads=variant.num_heads,
                hidden=variant.mlp_ratio * dim,
                scales=variant.scales,
                threshold=variant.threshold if variant.diversity else None,
                drop_path=variant.drop_path_rate,
            )
            stages.append(stage.append(block))
        stem: nn.Module = ConvolvedPatchStem(in_chans, dim)
        if hybrid:
            stem = NormedPatchStem(in_chans, variant.conv_dims[0], 4, norm_eps=NORM_EPS)
            nn.init.normal_(stem.conv.weight, std=0.02)
            assert stem.conv.bias is not None
            nn.init.zeros_(stem.conv.bias)
        return Parts(
            stem,
            stages,
            dims=[*variant.conv_dims, *[dim] * variant.depth],
            strides=[1, *[2] * len(variant.conv_dims), *[1] * (variant.depth - 1)],
            norm=nn.Identity(),
            pool_heads=variant.num_heads,
        )

    def finish(self, variant: FANVariant) -> None:
        """Put the class token in."""
        dim, hidden = variant.dim, variant.mlp_ratio * variant.dim
        token = partial(
            ClassReader, dim, num_heads=variant.num_heads, hidden=hidden, depth=variant.class_depth
        )
        self.read_by(token, nn.LayerNorm(dim, eps=NORM_EPS))
        if self.num_classes:
            nn.init.normal_(cast(nn.Linear, self.head.fc).weight, std=0.02)
        self.diversity = variant.diversity
        self.conv_dims = tuple(variant.conv_dims)

    def forward(self, x: Tensor) -> Any:
        """(B, in_chans, H, W) -> logits (B, num_classes); in training with `diversity`, `WithLosses`."""
        logits = super().forward(x)
        if not self.training or not self.diversity:
            return logits
        judged = [module for module in self.modules() if isinstance(module, JudgedAttention2d)]
        left = [loss for attention in judged for loss in attention.take()]
        return with_mean(logits, "attention_diversification", self.diversity, left)
