"""NAT, DiNAT and DiNAT_s: stages of neighbourhood attention."""

from __future__ import annotations

from torch import nn

from qna.mixers import NeighborhoodAttention2d
from qna.models._parts.block import MixerBlock, drop_path_rates
from qna.models._parts.hierarchy import Stage
from qna.models._parts.patches import NORM_EPS, NormedPatchStem, PatchHalving
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.nat.reductions import ConvolutionHalving, OverlappingStem
from qna.models.nat.variants import NATVariant
from qna.parts.initializers import init_linear_


class NAT(SizedHierarchy):
    """A neighbourhood attention transformer (Hassani et al., CVPR 2023), dilated or not.

    Images (B, in_chans, H, W) of any height and width, also smaller than the windows: see
    `NeighborhoodAttention2d`. Every stage but the first begins with what halves the map; the authors count it
    as the end of the stage before.
    """

    @staticmethod
    def parts(variant: NATVariant, in_chans: int, *, attn_drop_rate: float = 0.0) -> Parts:
        """Its parts; `attn_drop_rate` is the dropout of the softmax of every block."""
        dims = [variant.dim * 2**i for i in range(len(variant.depths))]
        stem = OverlappingStem if variant.overlapping else NormedPatchStem
        halving = ConvolutionHalving if variant.overlapping else PatchHalving
        rates = drop_path_rates(variant.drop_path_rate, sum(variant.depths))
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
        return Parts(
            stem(in_chans, variant.dim, variant.patch_size),
            stages,
            dims=dims,
            strides=[1, *[2] * (len(dims) - 1)],
            norm=nn.LayerNorm(dims[-1], eps=NORM_EPS),
            pool_heads=dims[-1] // variant.head_dim,
        )

    def finish(self, variant: NATVariant) -> None:
        """Draw the weights of linear maps as the variant says."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if variant.weight_std is None:
                    init_linear_(module)
                else:
                    nn.init.normal_(module.weight, std=variant.weight_std)


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
