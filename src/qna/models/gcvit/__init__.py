"""GC ViT: blocks of windows, every second with queries of the whole image."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qna.mixers import MIXERS
from qna.mixers.global_context import GlobalQuery
from qna.models.family import Family
from qna.models.gcvit.authors import AUTHORS
from qna.models.gcvit.network import GCViT
from qna.models.gcvit.stages import ResidualHalving, ResidualStem
from qna.models.gcvit.variants import GCVIT, GCViTVariant
from qna.parts.drop_path import DropPath

__all__ = ["FAMILY", "GCVIT", "GCViT", "GCViTVariant"]


def _timm_cfg(variant: GCViTVariant) -> Mapping[str, Any]:
    reduction = 4 * 2 ** (len(variant.depths) - 1)
    return {
        "pool_size": (-(-variant.image_size // reduction),) * 2,
        "crop_pct": 0.875,
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        "origin_url": "https://github.com/NVlabs/GCVit",
        # of the published weights; none come with this package
        "license": "cc-by-nc-sa-4.0",
    }


FAMILY = Family(
    "gcvit",
    replace(
        MIXERS["GlobalContextAttention2d"].about,
        differs="images of any size and aspect ratio, where the authors' and timm's networks are built for "
        "one size that windows divide; what halves the map begins a stage; the nano size is ours",
    ),
    network=GCViT,
    variants=GCVIT,
    timm_cfg=_timm_cfg,
    stages=lambda variant: len(variant.depths),
    authors=AUTHORS,
    leaves=(ResidualStem, ResidualHalving, GlobalQuery, DropPath),
)
