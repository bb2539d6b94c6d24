"""SpectFormer: blocks of spectral gating, then blocks of attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from qna._core.errors import InvalidInput
from qna._core.with_losses import Supervised, WithLosses
from qna.mixers import FullAttention2d, SpectralGating2d
from qna.models._parts.block import NORM_EPS, MixerBlock, drop_path_rates
from qna.models._parts.class_token import TokenHierarchy
from qna.models._parts.hierarchy import Stage
from qna.models._parts.overlapping import OverlappingHalving, init_convolution_
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.spectformer.blocks import (
    ClassBlock,
    ConvolvedStem,
    PositionedMlp,
    PositionedPatchStem,
    SpectralBlock,
)
from qna.models.spectformer.variants import SpectFormerHVariant, SpectFormerVariant
from qna.parts.initializers import truncated_normal_


class SpectFormer(SizedHierarchy):
    """SpectFormer (Patro et al., WACV 2025) of one row of blocks; images of any height and width.

    Filters and the embedding of positions are learned at the variant's `image_size` and resized for others.
    """

    @staticmethod
    def parts(variant: SpectFormerVariant, in_chans: int) -> Parts:
        """Its parts."""
        dim, size = variant.dim, -(-variant.image_size // variant.patch_size)
        stages = []
        for i, rate in enumerate(drop_path_rates(variant.drop_path_rate, variant.depth)):
            if i < variant.spectral:
                mixer = SpectralGating2d(dim, map_size=size)
                block = SpectralBlock(dim, mixer, mlp_ratio=variant.mlp_ratio, drop_path=rate)
            else:
                mixer = FullAttention2d(dim, num_heads=variant.num_heads, bias=True)
                block = MixerBlock(
                    dim, mixer, out_dim=dim, drop_path=rate, mlp_ratio=variant.mlp_ratio, gelu="none"
                )
            stages.append(Stage(block))
        return Parts(
            PositionedPatchStem(in_chans, dim, variant.patch_size, size),
            stages,
            dims=[dim] * variant.depth,
            strides=[1] * variant.depth,
            norm=nn.LayerNorm(dim, eps=NORM_EPS),
            pool_heads=variant.num_heads,
        )

    def finish(self, variant: SpectFormerVariant) -> None:
        """Draw the weights of linear maps."""
        _init(self)


class SpectFormerH(TokenHierarchy):
    """The hierarchical SpectFormer (Patro et al., WACV 2025), with images of any height and width.

    Stages of spectral gating, then of attention. Instead of the mean of the last map ("avg") the classifier
    reads a token that begins as this mean and attends the map.

    With ``aux_weight`` above 0 there is a second head, on every position, and in training the network gives
    `WithLosses`, with the mean of its logits as `Supervised` of that weight. The authors train it with a
    label for each position, from maps of labels and mixed tokens; who has such maps asks `position_logits`.
    In evaluation half of the largest of its logits, class by class, is added to the others, as theirs is.
    """

    @staticmethod
    def parts(variant: SpectFormerHVariant, in_chans: int) -> Parts:
        """Its parts."""
        rates = drop_path_rates(variant.drop_path_rate, sum(variant.depths))
        stages, size = [], -(-variant.image_size // 4)
        for i, (dim, depth) in enumerate(zip(variant.dims, variant.depths, strict=True)):
            stage = Stage(*(OverlappingHalving(variant.dims[i - 1], dim),) * (i > 0))
            for _ in range(depth):
                if i < variant.spectral:
                    mixer: nn.Module = SpectralGating2d(dim, map_size=size)
                else:
                    mixer = FullAttention2d(dim, num_heads=variant.num_heads[i], bias=True)
                mlp = PositionedMlp(dim, variant.mlp_ratios[i] * dim)
                stage.append(MixerBlock(dim, mixer, out_dim=dim, drop_path=next(rates), mlp=mlp))
            if i < len(variant.dims) - 1:
                stage.append(nn.LayerNorm(dim, eps=NORM_EPS))
            stages.append(stage)
            size = -(-size // 2)
        return Parts(
            ConvolvedStem(in_chans, variant.stem_dim, variant.dims[0]),
            stages,
            dims=variant.dims,
            strides=[1, *[2] * (len(variant.dims) - 1)],
            norm=nn.Identity(),
            pool_heads=variant.num_heads[-1],
        )

    def finish(self, variant: SpectFormerHVariant) -> None:
        """Put the class token and the second head in, and draw the weights."""
        dim = variant.dims[-1]
        block = ClassBlock(dim, variant.num_heads[-1], variant.mlp_ratios[-1])
        self.read_by(block, nn.LayerNorm(dim, eps=NORM_EPS))
        self.aux_weight = variant.aux_weight
        self.aux_head: nn.Linear | None = None
        if variant.aux_weight and self.num_classes:
            self.aux_head = nn.Linear(dim, self.num_classes)
        _init(self)

    def forward(self, x: Tensor) -> Any:
        """(B, in_chans, H, W) -> logits (B, num_classes); in training with a second head, `WithLosses`."""
        z = self.forward_features(x)
        logits = self.forward_head(z)
        if self.aux_head is None or not self.training:
            return logits
        mean = self.position_logits(z).mean((1, 2))
        return WithLosses(logits, {}, {"positions": Supervised(mean, self.aux_weight)})

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The map of `forward_features` -> logits, or the class token (B, C) where `pre_logits`."""
        y = super().forward_head(x, pre_logits=pre_logits)
        if pre_logits or self.training or self.aux_head is None or self.class_block is None:
            return y
        return y + self.position_logits(x).amax((1, 2)) / 2 if self.global_pool in ("avg", "gap") else y

    def position_logits(self, x: Tensor) -> Tensor:
        """The second head on the map of `forward_features`: (B, H', W', num_classes).

        Raises:
            InvalidInput: if the model has none.
        """
        if self.aux_head is None:
            raise InvalidInput("this SpectFormer has no second head; aux_weight above 0 makes one")
        return self.aux_head(self.last_norm(x))

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new linear layer for `num_classes`, and a new pooling if one is named; of the second head too."""
        super().reset_classifier(num_classes, global_pool)
        if self.aux_head is not None:
            old = self.aux_head.weight
            new = nn.Linear(old.shape[1], num_classes) if num_classes else None
            self.aux_head = new and new.to(device=old.device, dtype=old.dtype).train(self.training)

    def prune_intermediate_layers(self, *arguments: Any, **named: Any) -> list[int]:
        """As `TokenHierarchy`; the second head goes with the first."""
        taken = super().prune_intermediate_layers(*arguments, **named)
        if not self.num_classes:
            self.aux_head = None
        return taken


def _init(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            truncated_normal_(module.weight, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init_convolution_(module)
