"""Networks of one stage: what laboratories build that compare blocks of mixers on small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from qna.models._parts.hierarchy import Hierarchy, Stage
from qna.models._parts.patches import NORM_EPS, NormedPatchStem


def one_stage(
    blocks: Sequence[nn.Module] | Stage, *, channels: int, classes: int, dim: int, patch_size: int
) -> Hierarchy:
    """Patches through a linear map, blocks, a norm, the mean and a classifier.

    No position sees anything of others but by the blocks.

    Args:
        blocks: each (B, H, W, dim) -> the same; or a stage of them.
        channels: of the images.
        classes: number of logits.
        dim: channels of the map.
        patch_size: pixels per axis of a position of the map.
    """
    return Hierarchy(
        NormedPatchStem(channels, dim, patch_size),
        [blocks if isinstance(blocks, Stage) else Stage(*blocks)],
        dims=[dim],
        strides=[1],
        norm=nn.LayerNorm(dim, eps=NORM_EPS),
        pool_heads=1,
        in_chans=channels,
        num_classes=classes,
        global_pool="avg",
        img_size=patch_size,
        drop_rate=0.0,
    )
