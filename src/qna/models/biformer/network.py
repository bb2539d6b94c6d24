"""BiFormer: stages of bi-level routing attention, and a last one of plain attention."""

from __future__ import annotations

from torch import nn

from qna.mixers import BiLevelRoutingAttention2d
from qna.models._parts.block import drop_path_rates
from qna.models._parts.hierarchy import Stage
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.biformer.block import BiFormerBlock, EnhancedFullAttention2d
from qna.models.biformer.reductions import BiFormerHalving, BiFormerStem, MapBatchNorm
from qna.models.biformer.variants import BiFormerVariant


class BiFormer(SizedHierarchy):
    """A vision transformer of bi-level routing attention (Zhu et al., CVPR 2023).

    Images (B, in_chans, H, W) of any height and width; maps are rounded up where they are halved, and one
    that its regions do not divide is filled up as `border` says. Every stage but the first begins with what
    halves the map. The last norm is a batch norm.
    """

    @staticmethod
    def parts(variant: BiFormerVariant, in_chans: int) -> Parts:
        """Its parts."""
        dims = [variant.dim * 2**i for i in range(len(variant.depths))]
        rates = drop_path_rates(variant.drop_path_rate, sum(variant.depths))
        stages = []
        for i, (dim, depth) in enumerate(zip(dims, variant.depths, strict=True)):
            halving = (BiFormerHalving(dims[i - 1], overlapping=variant.overlapping),) if i else ()
            stage = Stage(*halving)
            for _ in range(depth):
                mixer = _mixer(variant, dim, variant.topks[i])
                block = BiFormerBlock(
                    dim,
                    mixer,
                    position=variant.overlapping,
                    drop_path=next(rates),
                    mlp_ratio=variant.mlp_ratio,
                )
                stage.append(block)
            stages.append(stage)
        return Parts(
            BiFormerStem(in_chans, variant.dim, overlapping=variant.overlapping),
            stages,
            dims=dims,
            strides=[1, *[2] * (len(dims) - 1)],
            norm=MapBatchNorm(dims[-1]),
            pool_heads=dims[-1] // variant.head_dim,
        )

    def finish(self, variant: BiFormerVariant) -> None:
        """Draw the weights of linear maps."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _mixer(variant: BiFormerVariant, dim: int, topk: int | None) -> nn.Module:
    if topk is None:
        return EnhancedFullAttention2d(dim, enhances_values=variant.enhances_values)
    return BiLevelRoutingAttention2d(
        dim,
        num_heads=dim // variant.head_dim,
        regions=variant.regions,
        topk=topk,
        border=variant.border,
    )
