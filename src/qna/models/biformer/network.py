"""BiFormer: stages of bi-level routing attention, and a last one of plain attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, cast

from torch import nn

from qna._core.checks import positive
from qna.mixers import BiLevelRoutingAttention2d
from qna.models._parts.hierarchy import Hierarchy, Stage
from qna.models.biformer.block import BiFormerBlock, EnhancedFullAttention2d
from qna.models.biformer.reductions import BiFormerHalving, BiFormerStem, MapBatchNorm
from qna.models.biformer.variants import BiFormerVariant


class BiFormer(Hierarchy):
    """A vision transformer of bi-level routing attention (Zhu et al., CVPR 2023).

    Images (B, in_chans, H, W) of any height and width; maps are rounded up where they are halved, and one
    that its regions do not divide is filled up as `border` says. Every stage but the first begins with what
    halves the map. The last norm is a batch norm.

    Args:
        variant: its sizes.
        in_chans: channels of the image.
        num_classes: number of logits; 0 for none.
        global_pool: "avg" (or "gap"), "qnav1", "qnav2" (pooling with learned queries), or "" for none.
        img_size: nominal size, from which the tables of the pooling with learned queries take theirs; None
            for the variant's.
        drop_rate: dropout before the classifier.
    """

    def __init__(
        self,
        variant: BiFormerVariant,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        img_size: int | Sequence[int] | None = None,
        drop_rate: float = 0.0,
    ):
        positive(type(self).__name__, in_chans=in_chans)
        dims = [variant.dim * 2**i for i in range(len(variant.depths))]
        steps = max(1, sum(variant.depths) - 1)
        rates = (variant.drop_path_rate * i / steps for i in count())
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
        super().__init__(
            BiFormerStem(in_chans, variant.dim, overlapping=variant.overlapping),
            stages,
            dims=dims,
            strides=[1, *[2] * (len(dims) - 1)],
            norm=MapBatchNorm(dims[-1]),
            pool_heads=dims[-1] // variant.head_dim,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            img_size=variant.image_size if img_size is None else img_size,
            drop_rate=drop_rate,
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @classmethod
    def of(cls, variant: BiFormerVariant, **arguments: Any) -> BiFormer:
        """The model of a variant; `arguments`, its fields' and the constructor's, go before what it says."""
        varied, others = variant.varied(arguments)
        return cls(cast(BiFormerVariant, varied), **others)


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
