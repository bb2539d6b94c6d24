"""NAT, DiNAT and DiNAT_s: stages of neighbourhood attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from torch import nn

from qna._core.checks import positive
from qna.mixers import NeighborhoodAttention2d
from qna.models._parts.block import MixerBlock
from qna.models._parts.hierarchy import Hierarchy, Stage
from qna.models._parts.patches import NORM_EPS, NormedPatchStem, PatchHalving
from qna.models.nat.reductions import ConvolutionHalving, OverlappingStem
from qna.models.nat.variants import NATVariant
from qna.parts.initializers import init_linear_


class NAT(Hierarchy):
    """A neighbourhood attention transformer (Hassani et al., CVPR 2023), dilated or not.

    Images (B, in_chans, H, W) of any height and width, also smaller than the windows: see
    `NeighborhoodAttention2d`. Every stage but the first begins with what halves the map; the authors count it
    as the end of the stage before.

    Args:
        variant: its sizes.
        in_chans: channels of the image.
        num_classes: number of logits; 0 for none.
        global_pool: "avg" (or "gap"), "qnav1", "qnav2" (pooling with learned queries), or "" for none.
        img_size: nominal size, from which the tables of the pooling with learned queries take theirs; None
            for the variant's.
        drop_rate: dropout before the classifier.
        attn_drop_rate: dropout of the softmax of every block.
    """

    def __init__(
        self,
        variant: NATVariant,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        img_size: int | Sequence[int] | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
    ):
        positive(type(self).__name__, in_chans=in_chans)
        dims = [variant.dim * 2**i for i in range(len(variant.depths))]
        stem = OverlappingStem if variant.overlapping else NormedPatchStem
        halving = ConvolutionHalving if variant.overlapping else PatchHalving
        steps = max(1, sum(variant.depths) - 1)
        rates = (variant.drop_path_rate * i / steps for i in count())
        stages = []
        for i, (dim, depth) in enumerate(zip(dims, variant.depths, strict=True)):
            stage = Stage(*(halving(dims[i - 1]),) * (i > 0))
            for j in range(depth):
                mixer = NeighborhoodAttention2d(
                    dim,
                    num_heads=dim // variant.head_dim,
                    kernel_size=variant.kernel_size,
                    dilation=variant.dilation_of(i, j),
                    attn_drop=attn_drop_rate,
                )
                stage.append(_block(variant, dim, mixer, next(rates)))
            stages.append(stage)
        super().__init__(
            stem(in_chans, variant.dim, variant.patch_size),
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
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if variant.weight_std is None:
                    init_linear_(module)
                else:
                    nn.init.normal_(module.weight, std=variant.weight_std)

    @classmethod
    def of(cls, variant: NATVariant, **arguments: Any) -> NAT:
        """The model of a variant; `arguments`, its fields' and the constructor's, go before what it says."""
        variant, arguments = variant.varied(arguments)
        return cls(variant, **arguments)


def _block(variant: NATVariant, dim: int, mixer: nn.Module, drop_path: float) -> MixerBlock:
    return MixerBlock(
        dim,
        mixer,
        out_dim=dim,
        drop_path=drop_path,
        mlp_ratio=variant.mlp_ratio,
        norm_eps=NORM_EPS,
        layer_scale=variant.layer_scale,
        gelu="none",
    )
