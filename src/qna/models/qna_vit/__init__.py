"""QnA-ViT: self-attention in windows and learned queries, in seven sizes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qna.mixers.learned_query import ABOUT
from qna.models._parts import head, shortcut, stem
from qna.models._parts.merging import PatchMerging
from qna.models.family import Family
from qna.models.qna_vit.authors import AUTHORS
from qna.models.qna_vit.network import QnAViT
from qna.models.qna_vit.variants import QNA_VIT, QnAViTVariant
from qna.parts.drop_path import DropPath
from qna.parts.mlp import ChannelMlp

__all__ = ["FAMILY", "QNA_VIT", "QnAViT", "QnAViTVariant"]


def _timm_cfg(variant: QnAViTVariant) -> Mapping[str, Any]:
    reduction = variant.patch_size * 2 ** (len(variant.qna_blocks) - 1)
    return {
        "pool_size": (-(-variant.image_size // reduction),) * 2,
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        "origin_url": "https://github.com/moabarar/qna",
        "license": "mit",
    }


FAMILY = Family(
    "qna_vit",
    replace(
        ABOUT,
        differs="a strided block begins a stage, where theirs ends the stage before; the sizes nano, micro "
        "and mini are ours",
    ),
    network=QnAViT,
    variants=QNA_VIT,
    timm_cfg=_timm_cfg,
    stages=lambda variant: len(variant.qna_blocks),
    authors=AUTHORS,
    leaves=(
        *(ChannelMlp, DropPath, PatchMerging, stem.PatchStem, stem.ResNetStem),
        *(shortcut.StridedShortcut, shortcut.AveragePoolShortcut, head.QueryPool),
    ),
)
