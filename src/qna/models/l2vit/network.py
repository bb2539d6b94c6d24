"""L2ViT: windows and linear attention of the whole map in turn."""

from __future__ import annotations

from torch import nn

from qna.mixers import LinearAttention2d, WindowAttention2d
from qna.models._parts.block import drop_path_rates
from qna.models._parts.hierarchy import Stage
from qna.models._parts.patches import NORM_EPS
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.l2vit.block import L2ViTBlock, near_of
from qna.models.l2vit.patches import L2ViTStem, NormThenHalve
from qna.models.l2vit.variants import L2ViTVariant


class L2ViT(SizedHierarchy):
    """A vision transformer of windows and enhanced linear attention in turn (Zheng, arXiv 2501.16182).

    Images (B, in_chans, H, W) of any height and width: what patches, windows or what halves the map do not
    divide is filled up behind its end with zeros. Those that fill up a window are keys like others, with the
    biases as keys and values. Every stage but the first begins with what halves the map.
    """

    @staticmethod
    def parts(variant: L2ViTVariant, in_chans: int) -> Parts:
        """Its parts."""
        dims = [variant.dim * 2**i for i in range(len(variant.depths))]
        rates = drop_path_rates(variant.drop_path_rate, sum(variant.depths))
        stages = []
        for i, (dim, depth) in enumerate(zip(dims, variant.depths, strict=True)):
            stage = Stage(*(NormThenHalve(dims[i - 1]),) * (i > 0))
            stage.extend(_block(variant, dim, linear=n % 2 == 1, drop_path=next(rates)) for n in range(depth))
            stages.append(stage)
        return Parts(
            L2ViTStem(in_chans, variant.dim),
            stages,
            dims=dims,
            strides=[1, *[2] * (len(dims) - 1)],
            norm=nn.LayerNorm(dims[-1], eps=NORM_EPS),
            pool_heads=dims[-1] // variant.head_dim,
        )

    def finish(self, variant: L2ViTVariant) -> None:
        """Draw the weights of linear maps and convolutions."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                # the authors cut them at +-2, a hundred deviations
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _block(variant: L2ViTVariant, dim: int, *, linear: bool, drop_path: float) -> L2ViTBlock:
    heads = dim // variant.head_dim
    if linear:
        mixer: nn.Module = LinearAttention2d(dim, num_heads=heads, clamp=variant.clamp)
    else:
        mixer = WindowAttention2d(
            dim,
            num_heads=heads,
            window_size=variant.window_size,
            bias=True,
            border="zero",
            position_bias=False,
        )
    near = near_of(dim, linear=linear, concentration_size=variant.concentration_size, drop_path=drop_path)
    return L2ViTBlock(dim, mixer, near, drop_path=drop_path, mlp_ratio=variant.mlp_ratio)
