"""L2ViT: windows and linear attention of the whole map in turn, with local concentration."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qna.mixers import MIXERS
from qna.models._parts.position import PositionConvolution
from qna.models.family import Family
from qna.models.l2vit.authors import AUTHORS
from qna.models.l2vit.network import L2ViT
from qna.models.l2vit.patches import L2ViTStem, NormThenHalve
from qna.models.l2vit.variants import L2VIT, L2ViTVariant
from qna.parts.drop_path import DropPath
from qna.parts.mlp import ChannelMlp

__all__ = ["FAMILY", "L2VIT", "L2ViT", "L2ViTVariant"]


def _timm_cfg(variant: L2ViTVariant) -> Mapping[str, Any]:
    reduction = 4 * 2 ** (len(variant.depths) - 1)
    return {
        "pool_size": (-(-variant.image_size // reduction),) * 2,
        "first_conv": "stem.layers.0",
        "classifier": "head.fc",
        "origin_url": "https://github.com/ChuanyangZheng/L2ViT",
        "license": "mit",
    }


FAMILY = Family(
    "l2vit",
    replace(
        MIXERS["LinearAttention2d"].about,
        differs="what halves the map begins a stage, where theirs is apart; linear attention sums in single "
        "precision at least; the nano size is ours",
    ),
    network=L2ViT,
    variants=L2VIT,
    timm_cfg=_timm_cfg,
    stages=lambda variant: len(variant.depths),
    authors=AUTHORS,
    leaves=(ChannelMlp, DropPath, L2ViTStem, NormThenHalve, PositionConvolution),
)
