"""OverLoCK: an overview of the whole image first, whose context decides the kernels of a closer look."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, nn

from qna._core.with_losses import Supervised, WithLosses
from qna.mixers import DilatedReparam2d
from qna.models._parts.block import drop_path_rates
from qna.models._parts.hierarchy import Stage
from qna.models._parts.sized import Parts, SizedHierarchy
from qna.models.overlock.blocks import ContextHalving, DynamicBlock, LargeKernelBlock, NormedHalving
from qna.models.overlock.stages import (
    AuxiliaryHead,
    ConvolutionStem,
    FocusStage,
    OverviewStage,
    ProjectedNorm,
)
from qna.models.overlock.variants import OverLoCKVariant


class OverLoCK(SizedHierarchy):
    """OverLoCK (Lou and Yu, CVPR 2025) with timm's contract.

    Images (B, in_chans, H, W) of any height and width; maps round up where they are halved. The third stage's
    map holds the base network's, its context, and the overview that the last stage reads; the last one's the
    map and its context. A linear map with batch norm and SiLU follows as `norm`.

    With ``aux_weight`` above 0 there is a second head, on the overview, and in training the network gives
    `WithLosses` of the logits, with the overview's logits as `Supervised` of that weight (the authors' 0.4).
    In evaluation the second head is not called.
    """

    @staticmethod
    def parts(variant: OverLoCKVariant, in_chans: int) -> Parts:
        """Its parts."""
        context = variant.context_dim
        last = variant.dims[-1] + context
        return Parts(
            ConvolutionStem(in_chans, variant.dims[0]),
            _stages(variant),
            dims=[*variant.dims[:2], variant.dims[2] + 2 * context, last],
            strides=[1, 2, 2, 2],
            norm=ProjectedNorm(last, variant.projection),
            pool_heads=1,
        )

    def finish(self, variant: OverLoCKVariant) -> None:
        """Fit the heads to the projection, and draw the weights."""
        self.num_features = self.head_hidden_size = variant.projection
        self.head.follow(variant.projection, self._map_sizes[-1])
        self.head.num_heads = math.gcd(variant.projection, max(1, variant.projection // 32))
        self.reset_classifier(self.num_classes, self.global_pool)
        self.aux_weight = variant.aux_weight
        self.aux_head = None
        if variant.aux_weight and self.num_classes:
            self.aux_head = AuxiliaryHead(variant.dims[-1], self.num_classes)
        _init(self)

    def forward(self, x: Tensor) -> Any:
        """(B, in_chans, H, W) -> logits (B, num_classes); in training with a second head, `WithLosses`."""
        if self.aux_head is None or not self.training:
            return super().forward(x)
        first, second, third, last = self.stages
        z, overview = cast(OverviewStage, third).seen(second(first(self.stem(x))))
        logits = self.forward_head(self.norm(last(z)))
        return WithLosses(logits, {}, {"aux": Supervised(self.aux_head(overview), self.aux_weight)})

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new linear layer for `num_classes`, and a new pooling if one is named; of the second head too."""
        super().reset_classifier(num_classes, global_pool)
        if (old := getattr(self, "aux_head", None)) is not None:
            at = old.fc.weight
            new = AuxiliaryHead(old.fc.in_features, num_classes) if num_classes else None
            self.aux_head = new and new.to(device=at.device, dtype=at.dtype).train(self.training)

    def prune_intermediate_layers(self, *arguments: Any, **named: Any) -> list[int]:
        """As `Hierarchy`; the second head goes with the first."""
        taken = super().prune_intermediate_layers(*arguments, **named)
        if not self.num_classes:
            self.aux_head = None
        return taken

    def fuse(self) -> OverLoCK:
        """Merge every large kernel with the small ones beside it, in place: the deployed form.

        For evaluation, where what comes out stays the same to rounding. Returns itself.
        """
        for module in list(self.modules()):
            if isinstance(module, DilatedReparam2d):
                module.fuse()
        return self

    # under the name that the authors and UniRepLKNet's have for it
    reparameterize = fuse


def _stages(variant: OverLoCKVariant) -> list[Stage]:
    rates = drop_path_rates(variant.drop_path_rate, sum(variant.depths) + sum(variant.focus_depths))
    one, two, three, four = (_base(variant, i, rates) for i in range(4))
    first, second = (_focus(variant, i, rates) for i in range(2))
    context = variant.context_dim
    return [
        Stage(*one),
        Stage(*two),
        OverviewStage(three, [*four, nn.Linear(variant.dims[3], context)], first),
        FocusStage(ContextHalving(variant.dims[2], variant.dims[3], context), second, context),
    ]


def _base(variant: OverLoCKVariant, stage: int, rates: Iterator[float]) -> list[nn.Module]:
    dim = variant.dims[stage]
    blocks: list[nn.Module] = [NormedHalving(variant.dims[stage - 1], dim)] if stage else []
    for _ in range(variant.depths[stage]):
        block = LargeKernelBlock(
            dim,
            kernel_size=variant.kernel_sizes[stage],
            mlp_ratio=variant.mlp_ratio,
            # the trap: a scale in the last two stages alone
            scaled=stage > 1,
            drop_path=next(rates),
            deploy=variant.deploy,
        )
        blocks.append(block)
    return blocks


def _focus(variant: OverLoCKVariant, number: int, rates: Iterator[float]) -> list[nn.Module]:
    return [
        DynamicBlock(
            variant.dims[2 + number],
            variant.context_dim,
            num_heads=variant.num_heads[number],
            kernel_size=variant.kernel_sizes[2 + number],
            small_kernel_size=variant.small_kernel_size,
            mlp_ratio=variant.focus_mlp_ratio,
            first=number == 0 and i == 0,
            drop_path=next(rates),
            deploy=variant.deploy,
        )
        for i in range(variant.focus_depths[number])
    ]


def _init(network: nn.Module) -> None:
    # as the authors, whose tables of bias begin at zero in the network
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not name.startswith("head.pool"):
            # the trap: the authors cut at 2, not at 2 deviations
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in network.named_parameters():
        if name.endswith("_rpb"):
            nn.init.zeros_(parameter)
