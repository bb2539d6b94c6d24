"""ViTAEv2 with varied-size windows: stages that begin with a reduction cell, then normal cells."""

from __future__ import annotations

from typing import Any

from torch import nn

from qna.mixers import VariedSizeWindowAttention2d
from qna.models._parts.block import drop_path_rates
from qna.models._parts.hierarchy import Stage
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.vsa.cells import CellStem, NormalCell, ReductionCell
from qna.models.vsa.variants import ViTAEv2VSAVariant


class ViTAEv2VSA(SizedHierarchy):
    """ViTAEv2 (Zhang et al., IJCV 2023) with varied-size windows in all cells (Zhang et al., ECCV 2022).

    Images (B, in_chans, H, W) of any height and width: an image or a map that a reduction does not divide is
    filled up behind its end with zeros. The first stage's reduction cell is the stem. No norm stands before
    the classifier.
    """

    @staticmethod
    def parts(variant: ViTAEv2VSAVariant, in_chans: int) -> Parts:
        """Its parts."""
        rates = drop_path_rates(variant.drop_path_rate, sum(variant.depths))
        stages = []
        for i, depth in enumerate(variant.depths):
            stage = Stage()
            if i:
                stage.append(_reduction(variant, i, ReductionCell, variant.dims[i - 1]))
            stage.extend(_cell(variant, i, next(rates)) for _ in range(depth))
            stages.append(stage)
        return Parts(
            _reduction(variant, 0, CellStem, in_chans),
            stages,
            dims=variant.dims,
            strides=[1, *variant.reductions[1:]],
            norm=nn.Identity(),
            pool_heads=variant.heads[-1],
        )


def _windows(variant: ViTAEv2VSAVariant, num_heads: int) -> dict[str, Any]:
    return {
        "num_heads": num_heads,
        "window_size": variant.window_size,
        "padding": variant.padding,
        "zero_init": variant.zero_init,
    }


def _cell(variant: ViTAEv2VSAVariant, stage: int, drop_path: float) -> NormalCell:
    dim = variant.dims[stage]
    return NormalCell(
        dim,
        VariedSizeWindowAttention2d(dim, **_windows(variant, variant.heads[stage])),
        groups=variant.groups[stage],
        mlp_ratio=variant.mlp_ratio,
        drop_path=drop_path,
    )


def _reduction(
    variant: ViTAEv2VSAVariant, stage: int, kind: type[ReductionCell], in_chans: int
) -> ReductionCell:
    embed_dim = variant.dims[max(stage - 1, 0)]
    return kind(
        in_chans,
        variant.dims[stage],
        embed_dim=embed_dim,
        hidden=2 * variant.dims[stage] if variant.wide else embed_dim,
        groups=variant.reduction_groups[stage],
        reduction=variant.reductions[stage],
        kernel_size=variant.kernel_sizes[stage],
        dilations=variant.dilations[stage],
        windows=_windows(variant, variant.reduction_heads[stage]),
    )
