"""TransNeXt: stages of aggregated attention, and gated MLPs whose gates convolve."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qna.mixers import MIXERS
from qna.models._parts.overlapping import OverlappingHalving
from qna.models.family import Family
from qna.models.transnext import moh
from qna.models.transnext.authors import AUTHORS
from qna.models.transnext.moh import MOH_VIT, MoHViT, MoHViTVariant
from qna.models.transnext.network import TransNeXt
from qna.models.transnext.patches import OverlappingPatchStem
from qna.models.transnext.variants import TRANSNEXT, TransNeXtVariant
from qna.parts.conv_glu import ConvolutionalGLU
from qna.parts.drop_path import DropPath

__all__ = [
    "FAMILY",
    "MOH_FAMILY",
    "MOH_VIT",
    "TRANSNEXT",
    "MoHViT",
    "MoHViTVariant",
    "TransNeXt",
    "TransNeXtVariant",
]


_LEAVES = (ConvolutionalGLU, DropPath, OverlappingPatchStem, OverlappingHalving)


def _timm_cfg(variant: TransNeXtVariant) -> Mapping[str, Any]:
    reduction = variant.patch_size * 2 ** (len(variant.depths) - 1)
    return {
        "pool_size": (-(-variant.image_size // reduction),) * 2,
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        "origin_url": "https://github.com/DaiShiResearch/TransNeXt",
        "license": "apache-2.0",
    }


FAMILY = Family(
    "transnext",
    replace(
        MIXERS["AggregatedAttention2d"].about,
        differs="images of any size and aspect ratio, where the authors' network is built for one size of "
        "square; what halves the map begins a stage, where theirs is apart; the nano size is ours",
    ),
    network=TransNeXt,
    variants=TRANSNEXT,
    timm_cfg=_timm_cfg,
    stages=lambda variant: len(variant.depths),
    authors=AUTHORS,
    leaves=_LEAVES,
)

MOH_FAMILY = Family(
    "moh_vit",
    moh.ABOUT,
    network=MoHViT,
    variants=MOH_VIT,
    timm_cfg=lambda variant: {**_timm_cfg(variant), "origin_url": "https://github.com/SkyworkAI/MoH"},
    stages=lambda variant: len(variant.depths),
    authors=moh.AUTHORS,
    leaves=_LEAVES,
)
