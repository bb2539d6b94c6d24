"""The minimal transformer: patches with a class token, a row of blocks, and a classifier of that token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from qna.models._parts.block import drop_path_rates
from qna.models._parts.hierarchy import Stage
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.minimal.blocks import ClassTokenStem, MinimalBlock, TokenHead
from qna.models.minimal.variants import MinimalVariant
from qna.parts.minimal_attention import MinimalAttention


class MinimalTransformer(SizedHierarchy):
    """A transformer of reduced attention (Bermeitinger et al., 2024) with timm's contract.

    Images (B, in_chans, H, W) of any height and width; positions are learned for `img_size`, the variant's
    unless another is told, and resized for others. No norm stands before the classifier, since each block
    ends in one.

    Blocks hand on rows of tokens, (B, 1, 1 + n, C), of which the first is the class token: so do
    ``forward_features`` and hooks. ``forward_intermediates`` and ``features_only`` give maps of the others.

    With ``global_pool`` "token" the classifier reads the class token, with "avg" the mean of the others.
    """

    head_type = TokenHead

    def __init__(self, variant: Any, *, global_pool: str = "token", **arguments: Any):
        super().__init__(variant, global_pool=global_pool, **arguments)

    @classmethod
    def of(cls, variant: Any, **arguments: Any) -> MinimalTransformer:
        """The model of a variant, with its number of classes where none is told."""
        varied, others = variant.varied({"num_classes": variant.classes, **arguments})
        return cls(varied, **others)

    @staticmethod
    def sized(variant: MinimalVariant, img_size: int | Sequence[int] | None) -> MinimalVariant:
        """The variant with positions for images of that size; itself for None."""
        if img_size is None:
            return variant
        size: Any = img_size if isinstance(img_size, int) else tuple(img_size)
        return replace(variant, image_size=size, parameters=None)

    @staticmethod
    def parts(variant: MinimalVariant, in_chans: int) -> Parts:
        """Its parts."""
        dim, map_size = variant.dim, variant.map_size
        stages = []
        for rate in drop_path_rates(variant.drop_path_rate, variant.depth):
            attention = MinimalAttention(
                dim,
                num_heads=variant.num_heads,
                qk=variant.qk,
                value=variant.value,
                attn_drop=variant.drop,
            )
            hidden = variant.mlp_ratio * dim
            stages.append(Stage(MinimalBlock(attention, hidden=hidden, drop=variant.drop, drop_path=rate)))
        return Parts(
            ClassTokenStem(
                in_chans, dim, patch_size=variant.patch_size, map_size=map_size, drop=variant.drop
            ),
            stages,
            dims=[dim] * variant.depth,
            strides=[1] * variant.depth,
            norm=nn.Identity(),
            pool_heads=1,
        )

    def finish(self, variant: MinimalVariant) -> None:
        """Linear maps begin as torch makes them, as the re-implementation's do."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    def stage_map(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """The tokens of an image of `size` that are patches, (B, ceil(H / patch), ceil(W / patch), C)."""
        columns = -(-size[1] // self.feature_info[0]["reduction"])
        return x[:, 0, 1:].unflatten(1, (-1, columns))
