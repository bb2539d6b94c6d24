"""Terminator: a wide and shallow network whose weights come from slow nets, for small square images."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qna.mixers import MIXERS
from qna.models.family import Family
from qna.models.terminator.blocks import PixelStem, SlowFastBlock
from qna.models.terminator.kar3 import Kar3
from qna.models.terminator.network import Terminator
from qna.models.terminator.variants import TERMINATOR, TerminatorVariant

__all__ = ["FAMILY", "TERMINATOR", "Kar3", "Terminator", "TerminatorVariant"]


def _timm_cfg(variant: TerminatorVariant) -> Mapping[str, Any]:
    return {
        "num_classes": variant.classes,
        "fixed_input_size": True,
        "pool_size": (variant.image_size,) * 2,
        "crop_pct": 1.0,
        "first_conv": "stages.0.0.mix",
        "classifier": "head.fc",
        "origin_url": "https://github.com/hyperevolnet/Terminator",
        "license": "none given",
    }


FAMILY = Family(
    "terminator",
    replace(
        MIXERS["HyperZZWLocal2d"].about,
        differs=f"{MIXERS['HyperZZWLocal2d'].about.differs}; the slow loss is returned, where the author's "
        "network sums it up on itself, and is off unless asked for; left out are biases between blocks, "
        "which the author's code keeps at 0 outside its parameters, those of local branches, which the next "
        "standardisation takes away, and the penalty on norms of weights",
    ),
    network=Terminator,
    variants=TERMINATOR,
    timm_cfg=_timm_cfg,
    stages=lambda variant: len(variant.dims),
    leaves=(PixelStem, SlowFastBlock),
    exempt={
        "an_image_does_not_depend_on_its_batch": "as published, it does; see batch_context and running_stats",
        "every_floating_dtype": "frequencies of slow nets pass the largest number of fp16; after fuse() "
        "there are none",
        "every_way_of_timm_to_take_features": "timm's lists and dicts of features run one stage after the "
        "other, and blocks here read earlier maps too",
    },
)
