"""FocalNet: stages of focal modulation, or one row of it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qna.mixers import MIXERS
from qna.models.family import Family
from qna.models.focalnet.authors import AUTHORS
from qna.models.focalnet.blocks import FocalHalving, FocalStem
from qna.models.focalnet.network import FocalNet
from qna.models.focalnet.variants import FOCALNET, FocalNetVariant
from qna.parts.drop_path import DropPath
from qna.parts.layer_scale import LayerScale
from qna.parts.mlp import ChannelMlp

__all__ = ["FAMILY", "FOCALNET", "FocalNet", "FocalNetVariant"]


def _timm_cfg(variant: FocalNetVariant) -> Mapping[str, Any]:
    reduction = variant.patch_size * 2 ** (len(variant.depths) - 1)
    return {
        "pool_size": (-(-variant.image_size // reduction),) * 2,
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        "origin_url": "https://github.com/microsoft/FocalNet",
        "license": "mit",
    }


FAMILY = Family(
    "focalnet",
    replace(
        MIXERS["FocalModulation2d"].about,
        differs="images that patches do not divide are filled up, where the authors' classifiers crop them "
        "and their detectors fill them up too; what halves the map begins a stage, where theirs ends the "
        "stage before; dropout stands before the classifier alone; the nano size is ours. timm has models of "
        "the plain names, of which its focalnet_large_fl4 lacks the division of the authors' configuration",
    ),
    network=FocalNet,
    variants=FOCALNET,
    timm_cfg=_timm_cfg,
    stages=lambda variant: variant.depths[0] if variant.isotropic else len(variant.depths),
    authors=AUTHORS,
    leaves=(ChannelMlp, DropPath, FocalHalving, FocalStem, LayerScale),
)
