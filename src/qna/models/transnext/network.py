"""TransNeXt: stages of aggregated attention."""

from __future__ import annotations

from torch import nn

from qna.mixers import AggregatedAttention2d, LengthScaledAttention2d
from qna.models._parts.block import NORM_EPS, MixerBlock, drop_path_rates
from qna.models._parts.hierarchy import Stage
from qna.models._parts.overlapping import OverlappingHalving, init_convolution_
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.transnext.patches import OverlappingPatchStem
from qna.models.transnext.variants import TransNeXtVariant
from qna.parts.conv_glu import ConvolutionalGLU


class TransNeXt(SizedHierarchy):
    """TransNeXt (Shi, CVPR 2024), with images (B, in_chans, H, W) of any height and width.

    Every stage but the first begins with what halves the map, and every stage but the last ends in a norm;
    that of the last is the network's. Attention takes nothing from `img_size`: see the variant's
    `pretrain_size`. An attention rollout does not follow the convolutions of the MLPs.
    """

    @staticmethod
    def parts(variant: TransNeXtVariant, in_chans: int, *, attn_drop_rate: float = 0.0) -> Parts:
        """Its parts; `attn_drop_rate` is the dropout of the softmax of every block."""
        dims = [variant.dim * 2**i for i in range(len(variant.depths))]
        rates = drop_path_rates(variant.drop_path_rate, sum(variant.depths))
        stages = []
        for i, (dim, depth) in enumerate(zip(dims, variant.depths, strict=True)):
            stage = Stage(*(OverlappingHalving(dims[i - 1], dim),) * (i > 0))
            for _ in range(depth):
                mixer = _mixer(variant, i, attn_drop_rate)
                stage.append(_block(dim, mixer, variant.mlp_ratios[i], next(rates)))
            if i < len(dims) - 1:
                stage.append(nn.LayerNorm(dim, eps=NORM_EPS))
            stages.append(stage)
        return Parts(
            OverlappingPatchStem(in_chans, variant.dim, variant.patch_size),
            stages,
            dims=dims,
            strides=[1, *[2] * (len(dims) - 1)],
            norm=nn.LayerNorm(dims[-1], eps=NORM_EPS),
            pool_heads=dims[-1] // variant.head_dim,
        )

    def finish(self, variant: TransNeXtVariant) -> None:
        """Draw the weights as the authors do."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.Conv2d):
                init_convolution_(module)


def _mixer(variant: TransNeXtVariant, stage: int, attn_drop: float) -> nn.Module:
    dim = variant.dim * 2**stage
    shared = {
        "num_heads": dim // variant.head_dim,
        # rounded down, as the authors do
        "pretrain_size": max(1, variant.pretrain_size // (variant.patch_size * 2**stage)),
        "attn_drop": attn_drop,
    }
    ratio = variant.pool_ratios[stage]
    if ratio == 1:
        return LengthScaledAttention2d(dim, **shared)
    return AggregatedAttention2d(
        dim, kernel_size=variant.kernel_size, pool_ratio=ratio, pool_size=variant.pool_size, **shared
    )


def _block(dim: int, mixer: nn.Module, mlp_ratio: int, drop_path: float) -> MixerBlock:
    # two thirds, so that a gated MLP costs what a plain one of the ratio does
    mlp = ConvolutionalGLU(dim, 2 * mlp_ratio * dim // 3)
    return MixerBlock(dim, mixer, out_dim=dim, drop_path=drop_path, norm_eps=NORM_EPS, mlp=mlp)
