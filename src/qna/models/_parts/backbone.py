"""A hierarchical backbone: a stem, stages of blocks, a head. It holds any mixer and asks none what it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from qna._core.checks import natural, positive
from qna._core.errors import check_choice
from qna.models._parts.block import NORM_EPS, BlockSpec, MixerBlock, drop_path_rates
from qna.models._parts.hierarchy import Hierarchy, Stage
from qna.models._parts.shortcut import SHORTCUTS
from qna.models._parts.stem import STEMS
from qna.parts.protocols import Fuses


class Backbone(Hierarchy):
    """A hierarchical vision transformer of mixer blocks; timm's contract for models.

    Images (B, in_chans, H, W) of any height and width. Nothing is cropped: the patch stem makes
    ceil(H / patch) x ceil(W / patch) tokens, each later stage halves them, rounding up. An image of 33 x 47
    becomes maps of 9 x 12, 5 x 6, 3 x 3 and 2 x 2.

    Args:
        stages: blocks of every stage, in order; blocks of different mixers stand side by side.
        dim: channels of the first stage.
        pool_heads: heads of the pooling with learned queries.
        stem: "patch", or "resnet" (which always reduces by 4).
        patch_size: pixels per axis of a patch.
        shortcut: skip path of strided blocks, "conv1x1" or "avgpool".
        in_chans: channels of the image.
        num_classes: number of logits; 0 for none.
        global_pool: "avg" (or "gap"), "qnav1", "qnav2" (pooling with learned queries), or "" for none.
        img_size: nominal size, from which the tables of the pooling with learned queries take theirs.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0 over all blocks.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[BlockSpec]],
        *,
        dim: int,
        pool_heads: int,
        stem: str = "patch",
        patch_size: int = 4,
        shortcut: str = "conv1x1",
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        img_size: int | Sequence[int] = 224,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ):
        check_choice("stem", stem, STEMS)
        natural(type(self).__name__, num_classes=num_classes)
        positive(type(self).__name__, dim=dim, in_chans=in_chans, patch_size=patch_size)
        check_choice("shortcut", shortcut, SHORTCUTS)
        made = STEMS[stem](in_chans, dim, patch_size)
        rates = drop_path_rates(drop_path_rate, sum(map(len, stages)))
        built, dims = [], []
        for specs in stages:
            blocks = Stage()
            for spec in specs:
                block = MixerBlock.of(dim, spec, shortcut=shortcut, drop_path=next(rates))
                blocks.append(block)
                dim = block.out_dim
            built.append(blocks)
            dims.append(dim)
        super().__init__(
            made,
            built,
            dims=dims,
            strides=[math.prod(spec.stride for spec in specs) for specs in stages],
            norm=nn.LayerNorm(dims[-1], eps=NORM_EPS),
            pool_heads=pool_heads,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            img_size=img_size,
            drop_rate=drop_rate,
        )

    def fuse(self):
        """Fold the queries of every mixer that can into its projections, for inference; in place."""
        for module in list(self.modules()):
            if isinstance(module, Fuses) and module is not self:
                module.fuse()
        return self
