"""Terminator: slow nets make the weights that a wide and shallow network multiplies its maps with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from qna._core.checks import per_axis
from qna._core.errors import InvalidInput
from qna._core.with_losses import WithLosses
from qna.mixers.hyperzzw.slow_net import ContextSlowNet, SlowNet
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.terminator.blocks import LinkedStage, LinkedStages, PixelStem, SlowFastBlock, repeated
from qna.models.terminator.variants import TerminatorVariant


class Terminator(SizedHierarchy):
    """Terminator (Zhang, arXiv 2401.17948) with timm's contract, for square images of one size.

    No map is halved and no path leads around a block; a later block reads earlier ones' maps as well.

    As published, what the network says of an image depends on the others in the batch, in evaluation too:
    local kernels follow from the batch's mean, and standardisation takes the batch at hand. With
    ``batch_context=False`` and ``running_stats=True``, ours, an image in evaluation depends on itself alone.

    With ``slow_loss`` above 0 the network in training gives `WithLosses` of the logits: `slow_loss`, by that
    weight, under the name "slow". The author's weight is 1; the default is 0, so that whatever trains
    networks can train this one.
    """

    @classmethod
    def of(cls, variant: Any, **arguments: Any) -> Terminator:
        """The model of a variant; its hyper-kernels are of `img_size`, where that is given."""
        varied, others = variant.varied({"num_classes": variant.classes, **arguments})
        if (size := others.pop("img_size", None)) is not None:
            height, width = per_axis("img_size", size, 2, minimum=1)
            if height != width:
                raise InvalidInput(f"Terminator multiplies maps as matrices: H = W, got img_size={size}")
            if height != varied.image_size:
                varied = replace(varied, image_size=height, parameters=None)
        return cls(varied, **others)

    @staticmethod
    def parts(variant: TerminatorVariant, in_chans: int) -> Parts:
        """Its parts."""
        size = (variant.image_size,) * 2
        widths = [in_chans, *variant.dims]
        stages = [
            LinkedStage(
                SlowFastBlock(
                    variant,
                    widths[i],
                    out_dim,
                    layers=variant.layers[i],
                    earlier=len(variant.earlier[i]),
                    drop=variant.drop_path_rate if i else 0.0,
                )
            )
            for i, out_dim in enumerate(variant.dims)
        ]
        return Parts(
            PixelStem(in_chans, size),
            stages,
            dims=variant.dims,
            strides=[1] * len(stages),
            norm=nn.Identity(),
            pool_heads=1,
        )

    def finish(self, variant: TerminatorVariant) -> None:
        """Link the blocks and draw the weights of the classifier."""
        self.stages = LinkedStages(*self.stages, earlier=variant.earlier)
        self.slow_loss_weight = variant.slow_loss
        if self.num_classes:
            fc = cast(nn.Linear, self.get_classifier())
            nn.init.kaiming_normal_(fc.weight)
            nn.init.zeros_(fc.bias)

    def forward(self, x: Tensor) -> Any:
        """(B, in_chans, H, W) -> logits (B, num_classes); in training with a slow loss, `WithLosses`."""
        logits = super().forward(x)
        if not self.training or not self.slow_loss_weight:
            return logits
        return WithLosses(logits, {"slow": self.slow_loss_weight * self.slow_loss()})

    def slow_loss(self) -> Tensor:
        """How far the blocks' hyper-kernels for the whole map are from each other; no image plays a part.

        The sum, over all pairs of blocks, of the mean square of the difference, where the channels of the
        shallow one are repeated to as many as the deep one's. The author's code has a second form, of sums
        over the channels, which is not built.
        """
        kernels = [
            cast(SlowFastBlock, stage[0]).slow_net() for stage in cast(Sequence[LinkedStage], self.stages)
        ]
        pairs = [
            F.mse_loss(repeated(shallow, deep.shape[1]), deep) for shallow, deep in combinations(kernels, 2)
        ]
        # of one block, as of a network that is cut, there is no pair
        return sum(pairs, kernels[0].new_zeros(()))

    def stage_maps(self, x: Tensor, count: int) -> Sequence[Tensor]:
        """The maps after the first `count` stages."""
        return cast(LinkedStages, self.stages).maps(x, count)

    def fuse(self) -> Terminator:
        """Store all that no image changes, in place: hyper-kernels, and the sines of the local ones.

        What comes out stays the same bit for bit. For evaluation, and before a cast to 16 bits, which cannot
        hold the sines' frequencies. Returns itself.
        """
        for module in list(self.modules()):
            if isinstance(module, SlowNet | ContextSlowNet):
                module.fuse()
        return self
