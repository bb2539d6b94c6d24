"""TransNeXt: stages of aggregated attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from torch import nn

from qna._core.checks import positive
from qna.mixers import AggregatedAttention2d, LengthScaledAttention2d
from qna.models._parts.block import NORM_EPS, MixerBlock
from qna.models._parts.hierarchy import Hierarchy, Stage
from qna.models.transnext.patches import OverlappingHalving, OverlappingPatchStem, init_convolution_
from qna.models.transnext.variants import TransNeXtVariant
from qna.parts.conv_glu import ConvolutionalGLU


class TransNeXt(Hierarchy):
    """TransNeXt (Shi, CVPR 2024), with images (B, in_chans, H, W) of any height and width.

    Every stage but the first begins with what halves the map, and every stage but the last ends in a norm;
    that of the last is the network's. An attention rollout does not follow the convolutions of the MLPs.

    Args:
        variant: its sizes.
        in_chans: channels of the image.
        num_classes: number of logits; 0 for none.
        global_pool: "avg" (or "gap"), "qnav1", "qnav2" (pooling with learned queries), or "" for none.
        img_size: nominal size, from which the tables of the pooling with learned queries take theirs; None
            for the variant's. Attention takes nothing from it: see the variant's `pretrain_size`.
        drop_rate: dropout before the classifier.
        attn_drop_rate: dropout of the softmax of every block.
    """

    def __init__(
        self,
        variant: TransNeXtVariant,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        img_size: int | Sequence[int] | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
    ):
        positive(type(self).__name__, in_chans=in_chans)
        dims = [variant.dim * 2**i for i in range(len(variant.depths))]
        steps = max(1, sum(variant.depths) - 1)
        rates = (variant.drop_path_rate * i / steps for i in count())
        stages = []
        for i, (dim, depth) in enumerate(zip(dims, variant.depths, strict=True)):
            stage = Stage(*(OverlappingHalving(dims[i - 1], dim),) * (i > 0))
            for _ in range(depth):
                mixer = _mixer(variant, i, attn_drop_rate)
                stage.append(_block(dim, mixer, variant.mlp_ratios[i], next(rates)))
            if i < len(dims) - 1:
                stage.append(nn.LayerNorm(dim, eps=NORM_EPS))
            stages.append(stage)
        super().__init__(
            OverlappingPatchStem(in_chans, variant.dim, variant.patch_size),
            stages,
            dims=dims,
            strides=[1, *[2] * (len(dims) - 1)],
            norm=nn.LayerNorm(dims[-1], eps=NORM_EPS),
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
            elif isinstance(module, nn.Conv2d):
                init_convolution_(module)

    @classmethod
    def of(cls, variant: TransNeXtVariant, **arguments: Any) -> TransNeXt:
        """The model of a variant; `arguments`, its fields' and the constructor's, go before what it says."""
        variant, arguments = variant.varied(arguments)
        return cls(variant, **arguments)


def _mixer(variant: TransNeXtVariant, stage: int, attn_drop: float) -> nn.Module:
    dim = variant.dim * 2**stage
    shared = {
        "num_heads": dim // variant.head_dim,
        # rounded down, as the authors do
        "pretrain_size": max(1, variant.pretrain_size // (variant.patch_size * 2**stage)),
        "attn_drop": attn_drop,
    }
    ratio = variant.pool_ratios[stage]
    if ratio == 1:
        return LengthScaledAttention2d(dim, **shared)
    return AggregatedAttention2d(
        dim, kernel_size=variant.kernel_size, pool_ratio=ratio, pool_size=variant.pool_size, **shared
    )


def _block(dim: int, mixer: nn.Module, mlp_ratio: int, drop_path: float) -> MixerBlock:
    # two thirds, so that a gated MLP costs what a plain one of the ratio does
    mlp = ConvolutionalGLU(dim, 2 * mlp_ratio * dim // 3)
    return MixerBlock(dim, mixer, out_dim=dim, drop_path=drop_path, norm_eps=NORM_EPS, mlp=mlp)
