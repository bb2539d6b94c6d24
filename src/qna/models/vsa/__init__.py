"""Networks of varied-size windows: Swin's, and ViTAEv2's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qna.mixers import MIXERS
from qna.models._parts.patches import NormedPatchStem, PatchHalving
from qna.models._parts.position import PositionConvolution
from qna.models.family import Family
from qna.models.vsa.authors import AUTHORS
from qna.models.vsa.cells import CellStem, DilatedConvolutions, ParallelConvolutions, ReductionCell
from qna.models.vsa.swin import SwinVSA
from qna.models.vsa.variants import SWIN_VSA, VITAEV2_VSA, SwinVSAVariant, ViTAEv2VSAVariant
from qna.models.vsa.vitae import ViTAEv2VSA
from qna.parts.drop_path import DropPath
from qna.parts.mlp import ChannelMlp

__all__ = [
    "SWIN_VSA",
    "SWIN_VSA_FAMILY",
    "VITAEV2_VSA",
    "VITAEV2_VSA_FAMILY",
    "SwinVSA",
    "SwinVSAVariant",
    "ViTAEv2VSA",
    "ViTAEv2VSAVariant",
]

_ORIGIN = {"origin_url": "https://github.com/ViTAE-Transformer/ViTAE-VSA", "classifier": "head.fc"}


def _map_size(variant: Any, reductions: list[int]) -> tuple[int, int]:
    size = variant.image_size
    for reduction in reductions:
        size = -(-size // reduction)
    return size, size


def _swin_cfg(variant: SwinVSAVariant) -> Mapping[str, Any]:
    reductions = [variant.patch_size, *[2] * (len(variant.depths) - 1)]
    # no weights were published of these
    return {
        **_ORIGIN,
        "pool_size": _map_size(variant, reductions),
        "first_conv": "stem.conv",
        "license": "mit",
    }


def _vitae_cfg(variant: ViTAEv2VSAVariant) -> Mapping[str, Any]:
    # the authors' repository has no licence
    return {
        **_ORIGIN,
        "pool_size": _map_size(variant, list(variant.reductions)),
        "first_conv": "stem.pyramid.dilated1",
        "crop_pct": 0.9,
        "license": "none given",
    }


SWIN_VSA_FAMILY = Family(
    "swin_vsa",
    replace(
        MIXERS["VariedSizeWindowAttention2d"].about,
        differs="the authors published neither code nor weights of a Swin with their windows: in every block "
        "they take the place of Swin's, which are not shifted then, behind an embedding of positions as in "
        "the authors' ViTAEv2; images of any size; the nano size is ours",
        status="after",
    ),
    network=SwinVSA,
    variants=SWIN_VSA,
    timm_cfg=_swin_cfg,
    stages=lambda variant: len(variant.depths),
    leaves=(ChannelMlp, DropPath, NormedPatchStem, PatchHalving, PositionConvolution),
)

VITAEV2_VSA_FAMILY = Family(
    "vitaev2_vsa",
    replace(
        MIXERS["VariedSizeWindowAttention2d"].about,
        differs="images of any size, filled up behind their end where reductions do not divide them; the "
        "authors' classifiers are built for one square size; rates of stochastic depth grow linearly over "
        "all normal cells; the nano size is ours",
    ),
    network=ViTAEv2VSA,
    variants=VITAEV2_VSA,
    timm_cfg=_vitae_cfg,
    stages=lambda variant: len(variant.depths),
    authors=AUTHORS,
    leaves=(
        *(ChannelMlp, DropPath, PositionConvolution),
        *(CellStem, ReductionCell, DilatedConvolutions, ParallelConvolutions),
    ),
)
