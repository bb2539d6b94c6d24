"""SpectFormer: blocks of spectral gating, then blocks of attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
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
    `WithLosses`, with its logits as `Supervised` of that weight: every position is told the label of the
    image, as by the authors' code where it has no maps of labels. Who has such maps asks `position_logits`.
    In evaluation half of the largest of its logits, class by class, is added to the others, as theirs is.
    """

    aux_head: nn.Linear | None

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
        token = partial(ClassBlock, dim, variant.num_heads[-1], variant.mlp_ratios[-1])
        self.read_by(token, nn.LayerNorm(dim, eps=NORM_EPS))
        self.aux_weight = variant.aux_weight
        self.register_module("aux_head", self._new_aux_head())
        _init(self)

    def forward(self, x: Tensor) -> Any:
        """(B, in_chans, H, W) -> logits (B, num_classes); in training with a second head, `WithLosses`."""
        z = self.forward_features(x)
        logits = self.forward_head(z)
        if self.aux_head is None or not self.training:
            return logits
        return WithLosses(logits, {}, {"positions": Supervised(self.position_logits(z), self.aux_weight)})

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The map of `forward_features` -> logits, or the class token (B, C) where `pre_logits`."""
        y = super().forward_head(x, pre_logits=pre_logits)
        if pre_logits or self.training or self.aux_head is None or not self.global_pool:
            return y
        return y + self.position_logits(x).amax((1, 2)) / 2

    def position_logits(self, x: Tensor) -> Tensor:
        """The second head on the map of `forward_features`: (B, H', W', num_classes).

        Raises:
            InvalidInput: if the model has none.
        """
        if self.aux_head is None:
            raise InvalidInput("this SpectFormer has no second head; aux_weight above 0 makes one")
        return self.aux_head(self.last_norm(x))

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """As `TokenHierarchy`; a new second head comes with the first."""
        super().reset_classifier(num_classes, global_pool)
        self.aux_head = self.as_here(self._new_aux_head())

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """As `TokenHierarchy`; the second head goes with the first."""
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if self.cut_before_token:
            self.aux_weight, self.aux_head = 0.0, None
        return taken

    def draw_part(self, module: nn.Module) -> None:
        """As all parts are drawn."""
        _init(module)

    def _new_aux_head(self) -> nn.Linear | None:
        """Where there is a first head to go with."""
        if not (self.aux_weight and self.num_classes):
            return None
        return nn.Linear(self.num_features, self.num_classes)


def _init(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init_convolution_(module)
