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

    Images (B, in_chans, H, W) of one size, the variant's or the `img_size` that `of` is told.
    No position embedding and no last norm, as published. Every block shows its map.
    """

    @classmethod
    def of(
        cls, variant: NiNformerVariant, *, img_size: int | Sequence[int] | None = None, **arguments: Any
    ) -> NiNformer:
        """The model of a variant; `arguments`, its fields' and the constructor's, go before what it says."""
        varied, others = variant.varied(arguments)
        if img_size is not None:
            size: Any = img_size if isinstance(img_size, int) else tuple(img_size)
            varied = replace(varied, image_size=size, parameters=None)
        return cls(varied, **others)

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
