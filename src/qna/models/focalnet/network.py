"""FocalNet: stages, or one row, of blocks of focal modulation."""

from __future__ import annotations

import math
from typing import cast

from torch import nn

from qna.mixers import FocalModulation2d
from qna.models._parts.block import MixerBlock, drop_path_rates
from qna.models._parts.hierarchy import Stage
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.focalnet.blocks import NORM_EPS, FocalHalving, FocalStem, PostNormBlock
from qna.models.focalnet.variants import FocalNetVariant


class FocalNet(SizedHierarchy):
    """A focal modulation network (Yang et al., NeurIPS 2022) with timm's contract.

    Images (B, in_chans, H, W) of any height and width: an image or a map that the stride does not divide is
    filled up behind its end with zeros. Every stage but the first begins with what halves the map; the
    authors count it as the end of the stage before. A network of one stage shows the map after every block.
    """

    @staticmethod
    def parts(variant: FocalNetVariant, in_chans: int) -> Parts:
        """Its parts."""
        stem = FocalStem(
            in_chans, variant.dim, patch_size=variant.patch_size, overlapping=variant.overlapping
        )
        rates = drop_path_rates(variant.drop_path_rate, sum(variant.depths))
        stages = []
        for i, depth in enumerate(variant.depths):
            dim = variant.dim * 2**i
            stage = Stage(*(FocalHalving(dim // 2, overlapping=variant.overlapping),) * (i > 0))
            stage.extend(_block(variant, i, next(rates)) for _ in range(depth))
            stages.append(stage)
        if variant.isotropic:
            stages = [Stage(block) for block in stages[0]]
        dims = [variant.dim * (1 if variant.isotropic else 2**i) for i in range(len(stages))]
        return Parts(
            stem,
            stages,
            dims=dims,
            strides=[2 if i and not variant.isotropic else 1 for i in range(len(stages))],
            norm=nn.LayerNorm(dims[-1], eps=NORM_EPS),
            pool_heads=math.gcd(dims[-1], max(1, dims[-1] // 32)),
        )

    def finish(self, variant: FocalNetVariant) -> None:
        """Draw the weights of the classifier."""
        if self.num_classes:
            _init(self.get_classifier())


def _block(variant: FocalNetVariant, stage: int, drop_path: float) -> MixerBlock:
    dim = variant.dim * 2**stage
    mixer = FocalModulation2d(
        dim,
        kernel_sizes=variant.kernel_sizes(stage),
        normalize_modulator=variant.normalize_modulator,
        norm=variant.norm_in_modulation,
    )
    block = (PostNormBlock if variant.post_norm else MixerBlock)(
        dim,
        mixer,
        out_dim=dim,
        drop_path=drop_path,
        mlp_ratio=variant.mlp_ratio,
        norm_eps=NORM_EPS,
        layer_scale=variant.layer_scale,
        gelu="none",
    )
    for linear in (block.mlp.fc1, block.mlp.fc2):
        _init(linear)
    return block


def _init(linear: nn.Module) -> None:
    # as the authors; convolutions begin as torch makes them
    nn.init.normal_(cast(nn.Linear, linear).weight, std=0.02)
