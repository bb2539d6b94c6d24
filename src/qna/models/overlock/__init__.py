"""OverLoCK: overview first, then a closer look with dynamic kernels, in four sizes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qna.mixers import MIXERS
from qna.models.family import Family
from qna.models.overlock import blocks, stages
from qna.models.overlock.authors import AUTHORS
from qna.models.overlock.network import OverLoCK
from qna.models.overlock.variants import OVERLOCK, OverLoCKVariant
from qna.parts.drop_path import DropPath
from qna.parts.squeeze_excite import SqueezeExcite

__all__ = ["FAMILY", "OVERLOCK", "OverLoCK", "OverLoCKVariant"]


def _timm_cfg(variant: OverLoCKVariant) -> Mapping[str, Any]:
    crops = {"overlock_xt": 0.925, "overlock_b": 0.975}
    name = next((name for name, row in OVERLOCK.items() if row == variant), "")
    return {
        "pool_size": (-(-variant.image_size // 32),) * 2,
        "first_conv": "stem.conv1",
        "classifier": "head.fc",
        "crop_pct": crops.get(name, 0.95),
        "origin_url": "https://github.com/LMMMEng/OverLoCK",
        "license": "apache-2.0",
    }


FAMILY = Family(
    "overlock",
    replace(
        MIXERS["ContMix2d"].about,
        differs="the second head on the overview is there on request; what halves the map begins a stage; "
        "the third stage's map carries the overview to the last, each position four times; the nano size is "
        "ours",
    ),
    network=OverLoCK,
    variants=OVERLOCK,
    timm_cfg=_timm_cfg,
    stages=lambda variant: len(variant.dims),
    authors=AUTHORS,
    leaves=(
        *(DropPath, SqueezeExcite, blocks.ResidualDepthwise, blocks.ResponseNorm, blocks.NormedHalving),
        *(blocks.ContextFusion, blocks.ConvolvedMlp, blocks.ContextHalving, blocks.DynamicBlock),
        *(blocks.LargeKernelBlock, stages.ConvolutionStem, stages.OverviewStage, stages.FocusStage),
        stages.ProjectedNorm,
    ),
)
