"""SpectFormer: spectral gating first, attention after it; in one row of blocks, or in stages."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qna.mixers import MIXERS
from qna.models._parts.class_token import ClassAttention
from qna.models._parts.overlapping import OverlappingHalving
from qna.models.family import Family
from qna.models.spectformer.authors import AUTHORS, AUTHORS_H
from qna.models.spectformer.blocks import (
    ClassBlock,
    ConvolvedStem,
    PositionedMlp,
    PositionedPatchStem,
)
from qna.models.spectformer.network import SpectFormer, SpectFormerH
from qna.models.spectformer.variants import (
    SPECTFORMER,
    SPECTFORMER_H,
    SpectFormerHVariant,
    SpectFormerVariant,
)
from qna.parts.drop_path import DropPath
from qna.parts.mlp import ChannelMlp

__all__ = [
    "SPECTFORMER",
    "SPECTFORMER_FAMILY",
    "SPECTFORMER_H",
    "SPECTFORMER_H_FAMILY",
    "SpectFormer",
    "SpectFormerH",
    "SpectFormerHVariant",
    "SpectFormerVariant",
]


def _timm_cfg(variant: SpectFormerVariant) -> Mapping[str, Any]:
    return {
        "pool_size": (-(-variant.image_size // variant.patch_size),) * 2,
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        "origin_url": "https://github.com/badripatro/SpectFormers",
        # the authors' code has none
        "license": "unknown",
    }


def _timm_cfg_h(variant: SpectFormerHVariant) -> Mapping[str, Any]:
    return {
        "pool_size": (-(-variant.image_size // 2 ** (len(variant.depths) + 1)),) * 2,
        "first_conv": "stem.layers.0",
        "classifier": "head.fc",
        "origin_url": "https://github.com/badripatro/SpectFormers",
        # the authors' code has none
        "license": "unknown",
    }


_ABOUT = MIXERS["SpectralGating2d"].about

SPECTFORMER_FAMILY = Family(
    "spectformer",
    replace(
        _ABOUT,
        differs="images of any size, with filters and positions resized; the tiny and the base size have "
        "heads of 64 channels, where the authors' file has 6 heads for all and fails; every block is a "
        "stage; the nano size is ours",
    ),
    network=SpectFormer,
    variants=SPECTFORMER,
    timm_cfg=_timm_cfg,
    stages=lambda variant: variant.depth,
    authors=AUTHORS,
    leaves=(ChannelMlp, DropPath, PositionedPatchStem),
)

SPECTFORMER_H_FAMILY = Family(
    "spectformer_h",
    replace(
        _ABOUT,
        differs="images of any size, with filters resized; the second head, which published counts hold, is "
        "there on request and is told the label of the image at every position, without label maps or "
        "mixed tokens; the nano size is ours",
    ),
    network=SpectFormerH,
    variants=SPECTFORMER_H,
    timm_cfg=_timm_cfg_h,
    stages=lambda variant: len(variant.depths),
    authors=AUTHORS_H,
    leaves=(
        ChannelMlp,
        ClassAttention,
        ClassBlock,
        PositionedMlp,
        ConvolvedStem,
        DropPath,
        OverlappingHalving,
    ),
)
