"""BiFormer: stages of bi-level routing attention."""

from collections.abc import Mapping
from typing import Any

from qna._core.about import About
from qna.models._parts.position import PositionConvolution
from qna.models.biformer import reductions
from qna.models.biformer.authors import AUTHORS
from qna.models.biformer.block import EnhancedFullAttention2d
from qna.models.biformer.network import BiFormer
from qna.models.biformer.variants import BIFORMER_SIZES, BiFormerVariant
from qna.models.family import Family
from qna.parts.drop_path import DropPath
from qna.parts.mlp import ChannelMlp

__all__ = ["BIFORMER_SIZES", "FAMILY", "BiFormer", "BiFormerVariant"]


def _timm_cfg(variant: BiFormerVariant) -> Mapping[str, Any]:
    reduction = 4 * 2 ** (len(variant.depths) - 1)
    return {
        "pool_size": (-(-variant.image_size // reduction),) * 2,
        "first_conv": "stem.layers.0",
        "classifier": "head.fc",
        "origin_url": "https://github.com/rayleizhu/BiFormer",
        "license": "mit",
    }


FAMILY = Family(
    "biformer",
    About(
        title="BiFormer: Vision Transformer with Bi-Level Routing Attention",
        authors="Zhu, Wang, Ke et al.",
        venue="CVPR 2023",
        arxiv="2303.08810",
        read="the authors' code, rayleizhu/BiFormer at 1697bbb (MIT)",
        differs="what halves the map begins a stage, where theirs stands before it; images of any size, "
        "where theirs stop at maps that 7 regions do not divide unless told to pad, and drop the last row of "
        "an odd map in the networks of Swin's layout; the nano size is ours",
        status="exact",
    ),
    network=BiFormer,
    variants=BIFORMER_SIZES,
    timm_cfg=_timm_cfg,
    stages=lambda variant: len(variant.depths),
    authors=AUTHORS,
    leaves=(
        *(ChannelMlp, DropPath, reductions.BiFormerStem, reductions.BiFormerHalving),
        *(reductions.MapBatchNorm, EnhancedFullAttention2d, PositionConvolution),
    ),
)
