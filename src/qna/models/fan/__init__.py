"""Fully attentional networks: plain ones, and ones whose attention reads pooled tokens (TAP, ADL)."""

from collections.abc import Mapping
from typing import Any

from qna._core.about import About
from qna.models._parts.class_token import ClassAttention
from qna.models._parts.patches import NormedPatchStem
from qna.models.family import Family
from qna.models.fan.authors import AUTHORS
from qna.models.fan.blocks import ChannelAttentionMlp, ClassReader, ConvNeXtBlock, JudgedAttention2d
from qna.models.fan.maps import ConvolvedPatchStem, FourierPosition, PairedHalving
from qna.models.fan.network import FullyAttentionalNetwork
from qna.models.fan.variants import FAN, TAP_FAN, FANVariant
from qna.parts.drop_path import DropPath
from qna.parts.mlp import ChannelMlp
from qna.parts.token_pool import TokenAwarePool2d

__all__ = ["FAN", "FAN_FAMILY", "TAP_FAN", "TAP_FAN_FAMILY", "FANVariant", "FullyAttentionalNetwork"]


def _timm_cfg(variant: FANVariant) -> Mapping[str, Any]:
    return {
        "pool_size": (-(-variant.image_size // 16),) * 2,
        "crop_pct": 1.0,
        "first_conv": "stem.conv" if variant.conv_dims else "stem.layers.0",
        "classifier": "head.fc",
        **(_TAPPED if variant.scales else _PLAIN),
    }


# licences are those of the repositories that weights are published in; none come with this package
_PLAIN = {"origin_url": "https://github.com/NVlabs/FAN", "license": "other"}
_TAPPED = {"origin_url": "https://github.com/guoyongcs/TAPADL", "license": "mit"}

_SIZES = (
    "images of any size and aspect ratio, filled up where a hybrid halves an odd map; every block is a "
    "stage, and so are the two of a hybrid with convolutions; sines and cosines of positions in the "
    "precision of the network, at least float32; the nano sizes are ours, and the largest hybrid, blocks "
    "with squeeze and excitation and those in Swin are not here"
)
_LEAVES = (
    ChannelAttentionMlp,
    ChannelMlp,
    ClassAttention,
    ClassReader,
    ConvNeXtBlock,
    ConvolvedPatchStem,
    DropPath,
    FourierPosition,
    JudgedAttention2d,
    NormedPatchStem,
    PairedHalving,
    TokenAwarePool2d,
)

FAN_FAMILY = Family(
    "fan",
    About(
        "Understanding The Robustness in Vision Transformers",
        "Zhou, Yu, Xie et al.",
        "ICML 2022",
        "2204.12451",
        "the form of the authors' code in guoyongcs/TAPADL at 6e4dbff (MIT); the authors' own is "
        "NVlabs/FAN at ee1b7df (non-commercial), of which nothing is taken over",
        _SIZES,
        "exact",
    ),
    network=FullyAttentionalNetwork,
    variants=FAN,
    timm_cfg=_timm_cfg,
    stages=lambda variant: len(variant.conv_dims) + variant.depth,
    authors=AUTHORS,
    leaves=_LEAVES,
)

TAP_FAN_FAMILY = Family(
    "tap_fan",
    About(
        "Robustifying Token Attention for Vision Transformers",
        "Guo, Stutz, Schiele",
        "ICCV 2023",
        "2303.11126",
        "the authors' code, guoyongcs/TAPADL at 6e4dbff (MIT)",
        f"{_SIZES}. Their tokens must lie on a square. The loss is the mean over L blocks, theirs divides by "
        "L + 1e-6, and a batch of one fails there",
        "exact",
    ),
    network=FullyAttentionalNetwork,
    variants=TAP_FAN,
    timm_cfg=_timm_cfg,
    stages=lambda variant: len(variant.conv_dims) + variant.depth,
    authors=AUTHORS,
    leaves=_LEAVES,
)
