"""Swin with varied-size windows: its patches and sizes, and no shift."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, cast

from torch import nn

from qna._core.checks import positive
from qna.mixers import VariedSizeWindowAttention2d
from qna.models._parts.hierarchy import Hierarchy, Stage
from qna.models._parts.patches import NORM_EPS, NormedPatchStem, PatchHalving
from qna.models.vsa.blocks import VariedSizeBlock
from qna.models.vsa.variants import SwinVSAVariant


class SwinVSA(Hierarchy):
    """Swin (Liu et al., ICCV 2021) with varied-size windows in every block (Zhang et al., ECCV 2022).

    Images (B, in_chans, H, W) of any height and width: an image or a map that patches do not divide is filled
    up behind its end with zeros. Every stage but the first begins with what halves the map.

    Args:
        variant: its sizes.
        in_chans: channels of the image.
        num_classes: number of logits; 0 for none.
        global_pool: "avg" (or "gap"), "qnav1", "qnav2" (pooling with learned queries), or "" for none.
        img_size: nominal size, from which the tables of the pooling with learned queries take theirs; None
            for the variant's.
        drop_rate: dropout before the classifier.
    """

    def __init__(
        self,
        variant: SwinVSAVariant,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        img_size: int | Sequence[int] | None = None,
        drop_rate: float = 0.0,
    ):
        positive(type(self).__name__, in_chans=in_chans)
        dims = [variant.dim * 2**i for i in range(len(variant.depths))]
        steps = max(1, sum(variant.depths) - 1)
        rates = (variant.drop_path_rate * i / steps for i in count())
        stages = []
        for i, (dim, depth) in enumerate(zip(dims, variant.depths, strict=True)):
            stage = Stage(*(PatchHalving(dims[i - 1]),) * (i > 0))
            stage.extend(_block(variant, dim, next(rates)) for _ in range(depth))
            stages.append(stage)
        super().__init__(
            NormedPatchStem(in_chans, variant.dim, variant.patch_size),
            stages,
            dims=dims,
            strides=[1, *[2] * (len(dims) - 1)],
            norm=nn.LayerNorm(dims[-1], eps=NORM_EPS),
            pool_heads=dims[-1] // variant.head_dim,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            img_size=variant.image_size if img_size is None else img_size,
            drop_rate=drop_rate,
        )

    @classmethod
    def of(cls, variant: SwinVSAVariant, **arguments: Any) -> SwinVSA:
        """The model of a variant; `arguments`, its fields' and the constructor's, go before what it says."""
        varied, others = variant.varied(arguments)
        return cls(cast(SwinVSAVariant, varied), **others)


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
