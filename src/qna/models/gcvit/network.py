"""GC ViT: stages whose blocks attend inside windows, with queries of their own and of the whole image."""

from __future__ import annotations

from torch import nn

from qna.mixers import GlobalContextAttention2d, WindowAttention2d
from qna.mixers.global_context import GlobalQuery
from qna.models._parts.block import MixerBlock, drop_path_rates
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.gcvit.stages import (
    NORM_EPS,
    GlobalContextBlock,
    GlobalContextStage,
    ResidualHalving,
    ResidualStem,
)
from qna.models.gcvit.variants import GCViTVariant
from qna.parts.depthwise_residual import DepthwiseResidual
from qna.parts.windowed import WindowedAttention


class GCViT(SizedHierarchy):
    """GC ViT (Hatamizadeh et al., ICML 2023), with images (B, in_chans, H, W) of any height and width.

    Every second block of a stage, from the second on, attends with queries that a `GlobalQuery` makes of the
    map with which the blocks begin; they are the same for all windows of an image. Maps are rounded up where
    they are halved, and filled up behind their end to whole windows where the windows do not divide them;
    what is filled up is no key. A query map that has not the size of a window is resampled to it.

    `img_size` changes nothing of that. The authors enlarge the windows with the image instead: their weights
    for 384 and 512 pixels take ``window_sizes=(12, 12, 24, 12)`` and ``(16, 16, 32, 16)``.
    """

    @staticmethod
    def parts(variant: GCViTVariant, in_chans: int) -> Parts:
        """Its parts."""
        dims = [variant.dim * 2**i for i in range(len(variant.depths))]
        rates = drop_path_rates(variant.drop_path_rate, sum(variant.depths))
        stages = []
        for i, (dim, depth) in enumerate(zip(dims, variant.depths, strict=True)):
            layers: list[nn.Module] = [ResidualHalving(dims[i - 1], dim)] if i else []
            if depth > 1:
                layers.append(GlobalQuery(dim, variant.halvings[i]))
            layers += [_block(variant, i, number, next(rates)) for number in range(depth)]
            stages.append(GlobalContextStage(*layers))
        return Parts(
            ResidualStem(in_chans, variant.dim),
            stages,
            dims=dims,
            strides=[1, *[2] * (len(dims) - 1)],
            norm=nn.LayerNorm(dims[-1], eps=NORM_EPS),
            pool_heads=variant.num_heads[-1],
        )

    def finish(self, variant: GCViTVariant) -> None:
        """Draw the weights as the authors do."""
        self.depths = tuple(variant.depths)
        # convolutions of one tap there, which begin as torch makes them
        as_made = {m.linear for m in self.modules() if isinstance(m, DepthwiseResidual)}
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and module not in as_made and not name.startswith("head.pool"):
                # cut at 2, a hundred deviations: not cut
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, WindowedAttention) and module.position_table is not None:
                nn.init.normal_(module.position_table, std=0.02)


def _block(variant: GCViTVariant, stage: int, number: int, drop_path: float) -> MixerBlock:
    dim = variant.dim * 2**stage
    sizes = {"num_heads": variant.num_heads[stage], "window_size": variant.window_sizes[stage]}
    options = {
        "out_dim": dim,
        "drop_path": drop_path,
        "mlp_ratio": variant.mlp_ratio,
        "norm_eps": NORM_EPS,
        "layer_scale": variant.layer_scale,
        "gelu": "none",
    }
    if number % 2:
        mixer = GlobalContextAttention2d(dim, **sizes, halvings=None)
        return GlobalContextBlock(dim, mixer, **options)
    return MixerBlock(dim, WindowAttention2d(dim, **sizes, bias=True), **options)
