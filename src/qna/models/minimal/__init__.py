"""The minimal transformer: attention of one matrix, with or without MLP, for small images."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from qna.mixers import MIXERS
from qna.models.family import Family
from qna.models.minimal.blocks import ClassTokenStem, MinimalBlock
from qna.models.minimal.network import MinimalTransformer
from qna.models.minimal.variants import MINIMAL, MinimalVariant
from qna.parts.drop_path import DropPath
from qna.parts.minimal_attention import MinimalAttention
from qna.parts.mlp import ChannelMlp

__all__ = ["FAMILY", "MINIMAL", "MinimalTransformer", "MinimalVariant", "MinimalBlock"]


def _timm_cfg(variant: MinimalVariant) -> Mapping[str, Any]:
    return {
        "num_classes": variant.classes,
        # the features are a row of tokens
        "pool_size": (1, 1 + prod(variant.map_size)),
        "crop_pct": 1.0,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        # of the re-implementation, which has none
        "license": "unknown",
    }


_DRAWS = "dropout, which published sizes have, draws anew at each call"
_TOKENS = "a class token runs with the map: features are tokens, as those of timm's vision transformers"

FAMILY = Family(
    "minimal",
    replace(
        MIXERS["MinimalAttention2d"].about,
        differs="equal to the re-implementation where that runs; images of any size, with positions resized; "
        "norms through which nothing runs, in blocks without an MLP, are not built, so that counts are lower "
        "by 2 C a block; triangles begin near a multiple of the identity, where theirs are normal and do not "
        "train; the tiny sizes are ours",
    ),
    network=MinimalTransformer,
    variants=MINIMAL,
    timm_cfg=_timm_cfg,
    stages=lambda variant: variant.depth,
    leaves=(ChannelMlp, ClassTokenStem, DropPath, MinimalAttention),
    exempt={
        "grad_checkpointing_changes_no_gradient": _DRAWS,
        "torch_fx": _DRAWS,
        "forward_intermediates": _TOKENS,
        "pruning_keeps_what_is_taken": _TOKENS,
        "every_way_of_timm_to_take_features": _TOKENS,
    },
)
