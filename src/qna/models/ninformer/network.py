"""NiNformer: patches, a row of blocks, the mean and a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from qna.models._parts.block import drop_path_rates
from qna.models._parts.hierarchy import Stage
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.ninformer.block import NiNBlock, NiNStem
from qna.models.ninformer.variants import NiNformerVariant


class NiNformer(SizedHierarchy):
    """A NiNformer (Abdullah and Aydin, 2024) with timm's contract.

    Images (B, in_chans, H, W) of one size, the variant's unless `img_size` says another.
    No position embedding and no last norm, as published. Every block shows its map.
    """

    @staticmethod
    def sized(variant: NiNformerVariant, img_size: int | Sequence[int] | None) -> NiNformerVariant:
        """The variant with weights for images of that size; itself for None."""
        if img_size is None:
            return variant
        size: Any = img_size if not isinstance(img_size, Sequence) else tuple(img_size)
        return replace(variant, image_size=size, parameters=None)

    @staticmethod
    def parts(variant: NiNformerVariant, in_chans: int) -> Parts:
        """Its parts."""
        map_size = variant.map_size
        rates = drop_path_rates(variant.drop_path_rate, variant.depth)
        sizes = {"map_size": map_size, "hidden": variant.hidden, "drop": variant.mlp_drop}
        stages = [Stage(NiNBlock(variant.dim, drop_path=rate, **sizes)) for rate in rates]
        return Parts(
            NiNStem(in_chans, variant.dim, patch_size=variant.patch_size, image_size=variant.pixels),
            stages,
            dims=[variant.dim] * variant.depth,
            strides=[1] * variant.depth,
            norm=nn.Identity(),
            pool_heads=1,
        )

    def finish(self, variant: NiNformerVariant) -> None:
        """The classifier begins as torch makes it, as the authors' does."""
        classifier = self.get_classifier()
        if isinstance(classifier, nn.Linear):
            classifier.reset_parameters()
