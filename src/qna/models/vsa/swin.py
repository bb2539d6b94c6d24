"""Swin with varied-size windows: its patches and sizes, and no shift."""

from __future__ import annotations

from torch import nn

from qna.mixers import VariedSizeWindowAttention2d
from qna.models._parts.block import drop_path_rates
from qna.models._parts.hierarchy import Stage
from qna.models._parts.patches import NORM_EPS, NormedPatchStem, PatchHalving
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.vsa.blocks import VariedSizeBlock
from qna.models.vsa.variants import SwinVSAVariant


class SwinVSA(SizedHierarchy):
    """Swin (Liu et al., ICCV 2021) with varied-size windows in every block (Zhang et al., ECCV 2022).

    Images (B, in_chans, H, W) of any height and width: an image or a map that patches do not divide is filled
    up behind its end with zeros. Every stage but the first begins with what halves the map.
    """

    @staticmethod
    def parts(variant: SwinVSAVariant, in_chans: int) -> Parts:
        """Its parts."""
        dims = [variant.dim * 2**i for i in range(len(variant.depths))]
        rates = drop_path_rates(variant.drop_path_rate, sum(variant.depths))
        stages = []
        for i, (dim, depth) in enumerate(zip(dims, variant.depths, strict=True)):
            stage = Stage(*(PatchHalving(dims[i - 1]),) * (i > 0))
            stage.extend(_block(variant, dim, next(rates)) for _ in range(depth))
            stages.append(stage)
        return Parts(
            NormedPatchStem(in_chans, variant.dim, variant.patch_size),
            stages,
            dims=dims,
            strides=[1, *[2] * (len(dims) - 1)],
            norm=nn.LayerNorm(dims[-1], eps=NORM_EPS),
            pool_heads=dims[-1] // variant.head_dim,
        )


def _block(variant: SwinVSAVariant, dim: int, drop_path: float) -> VariedSizeBlock:
    mixer = VariedSizeWindowAttention2d(
        dim,
        num_heads=dim // variant.head_dim,
        window_size=variant.window_size,
        padding=variant.padding,
        zero_init=variant.zero_init,
    )
    return VariedSizeBlock(
        dim, mixer, drop_path=drop_path, mlp_ratio=variant.mlp_ratio, norm_eps=NORM_EPS, gelu="none"
    )
