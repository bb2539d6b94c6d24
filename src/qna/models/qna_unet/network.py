"""An encoder-decoder of learned queries alone: QnA makes the map smaller, QnA makes it larger again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qna._core.checks import natural
from qna._core.errors import check_choice
from qna.mixers import QnAUpsample2d
from qna.models._parts.backbone import Backbone
from qna.models._parts.block import NORM_EPS, BlockSpec, MixerBlock
from qna.models._parts.decay import exempt_names
from qna.models._parts.hierarchy import Stage
from qna.models._parts.shortcut import RepeatedShortcut
from qna.models.qna_unet.variants import QnAUNetVariant
from qna.parts.initializers import init_linear_
from qna.parts.linear import apply_linear
from qna.parts.open_size import part_of
from qna.parts.protocols import Fuses


class Ascent(nn.Module):
    """A level of the decoder: a block that doubles the map, the encoder's map beside it, then blocks.

    Args:
        dim: channels of the finer map; the coarser has twice as many.
        up: the block that doubles the map and halves its channels.
        blocks: that keep the finer map's size.
    """

    def __init__(self, dim: int, up: MixerBlock, blocks: Stage):
        super().__init__()
        self.up = up
        self.merge = nn.Linear(2 * dim, dim, bias=False)
        init_linear_(self.merge)
        self.blocks = blocks

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(B, ceil(H / 2), ceil(W / 2), 2 C) and the encoder's (B, H, W, C) -> (B, H, W, C)."""
        height, width = fine.shape[1:3]
        # an odd map was rounded up when it was halved
        raised = part_of(part_of(self.up(coarse), 1, 0, height), 2, 0, width)
        return self.blocks(apply_linear(self.merge, torch.cat([raised, fine], -1)))


class PixelHead(nn.Module):
    """From the finest map of the decoder to logits for every pixel, through learned queries.

    Args:
        dim: channels of the map.
        factor: pixels per position, along each axis.
        num_heads: of the up-sampling.
        kernel_size: of its window.
        num_classes: number of logits per pixel; 0 ends with the features.
    """

    def __init__(self, dim: int, *, factor: int, num_heads: int, kernel_size: int, num_classes: int):
        super().__init__()
        self.dim = dim
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.up = QnAUpsample2d(dim, num_heads=num_heads, factor=factor, kernel_size=kernel_size)
        self.shortcut = RepeatedShortcut(dim, dim, factor=factor)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """Put a new linear layer in."""
        self.fc = nn.Linear(self.dim, num_classes) if num_classes else nn.Identity()
        if isinstance(self.fc, nn.Linear):
            init_linear_(self.fc)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, H, W, C) -> logits (B, classes, factor H, factor W), or features where `pre_logits`."""
        x = self.norm2(self.shortcut(x) + self.up(self.norm1(x)))
        x = x if pre_logits or isinstance(self.fc, nn.Identity) else apply_linear(self.fc, x)
        return x.permute(0, 3, 1, 2)


class QnAUNet(nn.Module):
    """A U-Net (Ronneberger et al., MICCAI 2015) whose every step in space is made by learned queries.

    The encoder is a `Backbone` of QnA blocks that halves the map by strided QnA; the decoder doubles it by
    `QnAUpsample2d`, joins the encoder's map of that size by a linear layer, and goes on with QnA blocks.
    Images (B, in_chans, H, W) may have any height and width: maps are rounded up on the way down and cut on
    the way up.

    Args:
        variant: its sizes.
        in_chans: channels of the image.
        num_classes: number of logits per pixel; 0 ends with the features.
        drop_path_rate: stochastic depth of the encoder's last block; it grows linearly from 0.
    """

    output_fmt = "NHWC"

    def __init__(
        self,
        variant: QnAUNetVariant,
        *,
        in_chans: int = 3,
        num_classes: int = 21,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        natural(type(self).__name__, num_classes=num_classes)
        self.in_chans, self.num_classes, self.patch_size = in_chans, num_classes, variant.patch_size
        self.num_features = self.head_hidden_size = variant.dim
        self.encoder = Backbone(
            variant.stages(),
            dim=variant.dim,
            pool_heads=1,
            patch_size=variant.patch_size,
            in_chans=in_chans,
            num_classes=0,
            global_pool="",
            img_size=variant.image_size,
            drop_path_rate=drop_path_rate,
        )
        # the decoder's blocks normalise what they take
        self.encoder.norm = nn.Identity()
        self.feature_info = [
            {**info, "module": f"encoder.{info['module']}"} for info in self.encoder.feature_info
        ]
        self.decoder = nn.ModuleList(_ascent(variant, level) for level in variant.levels)
        self.head = PixelHead(
            variant.dim,
            factor=variant.patch_size,
            num_heads=variant.dim // variant.head_dim,
            kernel_size=variant.kernel_size,
            num_classes=num_classes,
        )

    @classmethod
    def of(cls, variant: QnAUNetVariant, **arguments: Any) -> QnAUNet:
        """The model of a variant; `arguments`, its fields' and the constructor's, go before what it says."""
        variant, arguments = variant.varied(arguments)
        return cls(variant, **{"drop_path_rate": variant.drop_path_rate, **arguments})

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> logits (B, num_classes, H, W)."""
        height, width = x.shape[2:]
        logits = self.forward_head(self.forward_features(x))
        # the stem fills the last patches up, the smaller half first
        top, left = ((-n % self.patch_size) // 2 for n in (height, width))
        return part_of(part_of(logits, 2, top, height), 3, left, width)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> the decoder's finest map, (B, ceil(H / patch), ceil(W / patch), dim)."""
        return self._ascend(self._maps(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The map of `forward_features` -> logits of all patches' pixels, or features where `pre_logits`."""
        return self.head(x, pre_logits=pre_logits)

    def forward_intermediates(  # noqa: PLR0917 - the order is timm's
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The encoder's maps after chosen stages; arguments are those of `Backbone.forward_intermediates`.

        Returns:
            the list of maps, or (what `forward_features` returns, the list). With `stop_early` the decoder is
            left out: the first is the last of the encoder's maps that was computed.
        """
        if intermediates_only or stop_early:
            return self.encoder.forward_intermediates(
                x, indices, norm, stop_early, output_fmt, intermediates_only
            )
        check_choice("output_fmt", output_fmt, ("NCHW", "NHWC"))
        taken, every = self.encoder.stage_indices(indices), self._maps(x)
        maps = [y for i, y in enumerate(every) if i in taken]
        if output_fmt == "NCHW":
            maps = [y.permute(0, 3, 1, 2).contiguous() for y in maps]
        return self._ascend(every), maps

    def _maps(self, x: Tensor) -> list[Tensor]:
        """The map of every stage of the encoder, (B, H', W', C)."""
        return self.encoder.forward_intermediates(x, output_fmt="NHWC", intermediates_only=True)

    def _ascend(self, maps: Sequence[Tensor]) -> Tensor:
        """From the encoder's maps to the decoder's finest."""
        *finer, x = maps
        for ascent, fine in zip(self.decoder, reversed(finer), strict=False):  # a pruned one has no decoder
            x = ascent(x, fine)
        return x

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what `forward_intermediates` does not need for these `indices`, which are returned."""
        taken = self.encoder.prune_intermediate_layers(indices, prune_norm, prune_head)
        if prune_head:
            self.decoder, self.head = nn.ModuleList(), nn.Identity()
        return taken

    def get_classifier(self) -> nn.Module:
        """The linear layer before the logits."""
        return self.head.fc  # type: ignore[return-value]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new linear layer for `num_classes`; a pixel has nothing to pool."""
        self.num_classes = num_classes
        at = next(self.parameters())
        self.head.reset(num_classes)  # type: ignore[operator]
        self.head.to(device=at.device, dtype=at.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the blocks' inputs for the backward pass, which computes the rest again."""
        for module in self.modules():
            if isinstance(module, Stage):
                module.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names that the paper's training exempts from decay: position bias and query weights."""
        return exempt_names(self)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters into layers, for layer-wise learning rates."""
        return {
            "stem": r"^encoder\.stem",
            "stages": r"^encoder\.stages\.(\d+)",
            "levels": r"^decoder\.(\d+)",
            "head": [(r"^head", (99999,))],
        }

    def fuse(self) -> QnAUNet:
        """Fold the queries of every mixer that can into its projections, for inference; in place."""
        for module in list(self.modules()):
            if isinstance(module, Fuses) and module is not self and module is not self.encoder:
                module.fuse()
        return self


def _ascent(variant: QnAUNetVariant, level: int) -> Ascent:
    """The level of the decoder that ends at the encoder's stage `level`."""
    dim = variant.dim * 2**level
    up = MixerBlock(
        2 * dim,
        QnAUpsample2d(
            2 * dim,
            num_heads=2 * dim // variant.head_dim,
            kernel_size=variant.kernel_size,
            out_dim=dim,
        ),
        out_dim=dim,
        shortcut=RepeatedShortcut(2 * dim, dim, factor=2),
    )
    spec: BlockSpec = variant.block(dim)
    blocks = [
        MixerBlock.of(dim, spec, shortcut="conv1x1", drop_path=0.0)
        for _ in range(variant.decoder_blocks[level])
    ]
    return Ascent(dim, up, Stage(*blocks))
