"""HaloNet: bottlenecks of halo attention, in eight sizes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qna.mixers import MIXERS
from qna.models.family import Family
from qna.models.halonet.authors import AUTHORS
from qna.models.halonet.network import ChannelNorm, HaloNet, HaloStem, LinearNorm
from qna.models.halonet.variants import HALONET, HaloNetVariant
from qna.parts.drop_path import DropPath

__all__ = ["FAMILY", "HALONET", "HaloNet", "HaloNetVariant"]


def _timm_cfg(variant: HaloNetVariant) -> Mapping[str, Any]:
    return {
        "pool_size": (-(-variant.image_size // (4 * 2 ** (len(variant.blocks) - 1))),) * 2,
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        "origin_url": "https://github.com/huggingface/pytorch-image-models",
        "license": "mit",
    }


FAMILY = Family(
    "halonet",
    replace(
        MIXERS["HaloAttention2d"].about,
        read="the abstract; timm 1.0.31's halonet_h1 (Apache-2.0); no code of the authors is published",
        differs="images of any size; the settings of the eight sizes are recalled, and support each other: "
        "counted by them all eight have the sizes that are recalled of the paper. H1 equals timm's with its "
        "heads and tables; its name here is qna_halonet_h1",
        status="after",
    ),
    network=HaloNet,
    variants=HALONET,
    timm_cfg=_timm_cfg,
    stages=lambda variant: len(variant.blocks),
    authors=AUTHORS,
    leaves=(ChannelNorm, DropPath, HaloStem, LinearNorm),
)
