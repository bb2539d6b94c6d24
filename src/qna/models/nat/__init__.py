"""NAT, DiNAT and DiNAT_s: stages of neighbourhood attention."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qna._core.about import About
from qna.models._parts.patches import NormedPatchStem, PatchHalving
from qna.models.family import Family
from qna.models.nat import reductions
from qna.models.nat.authors import AUTHORS
from qna.models.nat.network import NAT
from qna.models.nat.variants import DINAT_SIZES, NAT_SIZES, NATVariant
from qna.parts.drop_path import DropPath
from qna.parts.layer_scale import LayerScale
from qna.parts.mlp import ChannelMlp

__all__ = ["DINAT_FAMILY", "DINAT_SIZES", "NAT", "NAT_FAMILY", "NAT_SIZES", "NATVariant"]


def _timm_cfg(variant: NATVariant) -> Mapping[str, Any]:
    reduction = variant.patch_size * 2 ** (len(variant.depths) - 1)
    return {
        "pool_size": (-(-variant.image_size // reduction),) * 2,
        "first_conv": "stem.convs.0" if variant.overlapping else "stem.conv",
        "classifier": "head.fc",
        "crop_pct": 1.0 if variant.image_size == 384 else 224 / 256,
        "origin_url": "https://github.com/SHI-Labs/Neighborhood-Attention-Transformer",
        "license": "mit",
    }


NAT_FAMILY = Family(
    "nat",
    About(
        title="Neighborhood Attention Transformer",
        authors="Hassani, Walton, Li et al.",
        venue="CVPR 2023",
        arxiv="2204.07143",
        read="the authors' code, SHI-Labs/Neighborhood-Attention-Transformer at d334f5b (MIT)",
        differs="what halves the map begins a stage, where theirs ends the stage before; nano sizes are ours",
        status="exact",
    ),
    network=NAT,
    variants=NAT_SIZES,
    timm_cfg=_timm_cfg,
    stages=lambda variant: len(variant.depths),
    authors=AUTHORS,
    leaves=(
        *(ChannelMlp, DropPath, LayerScale, NormedPatchStem, PatchHalving),
        *(reductions.OverlappingStem, reductions.ConvolutionHalving),
    ),
)

DINAT_FAMILY = replace(
    NAT_FAMILY,
    name="dinat",
    about=replace(
        NAT_FAMILY.about,
        title="Dilated Neighborhood Attention Transformer",
        authors="Hassani, Shi",
        venue="2022",
        arxiv="2209.15001",
    ),
    variants=DINAT_SIZES,
)
