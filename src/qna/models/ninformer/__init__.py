"""NiNformer: blocks whose gate is a block of an MLP-Mixer, for small images of one size."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qna.mixers import MIXERS
from qna.models.family import Family
from qna.models.ninformer.authors import AUTHORS
from qna.models.ninformer.block import NiNBlock, NiNStem
from qna.models.ninformer.network import NiNformer
from qna.models.ninformer.variants import NINFORMER, NiNformerVariant
from qna.parts.drop_path import DropPath
from qna.parts.mlp import ChannelMlp

__all__ = ["FAMILY", "NINFORMER", "NiNBlock", "NiNformer", "NiNformerVariant"]


def _timm_cfg(variant: NiNformerVariant) -> Mapping[str, Any]:
    return {
        "pool_size": variant.map_size,
        "fixed_input_size": True,
        "crop_pct": 1.0,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        "origin_url": "https://github.com/Abdullah-88/NiNformer",
        "license": "bsd-3-clause",
    }


FAMILY = Family(
    "ninformer",
    replace(
        MIXERS["MixerGating2d"].about,
        differs="images of another size are refused by name; every block shows its map; dropout before the "
        "classifier and pooling with learned queries can be had and are off",
    ),
    network=NiNformer,
    variants=NINFORMER,
    timm_cfg=_timm_cfg,
    stages=lambda variant: variant.depth,
    authors=AUTHORS,
    leaves=(ChannelMlp, DropPath, NiNStem),
    exempt={
        "grad_checkpointing_changes_no_gradient": "dropout, which all sizes have, draws anew at each call",
        "torch_fx": "dropout, which all sizes have, draws anew at each call",
    },
)
