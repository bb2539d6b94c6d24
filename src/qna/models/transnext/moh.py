"""MoH-ViT: TransNeXt whose tokens choose among the heads of every attention."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from qna._core.about import About
from qna._core.errors import InvalidInput
from qna.models._parts.sized import Parts
from qna.models.authors_torch import read_authors
from qna.models.family import Authors
from qna.models.transnext.authors import TABLES, authors_name
from qna.models.transnext.network import TransNeXt
from qna.models.transnext.variants import TRANSNEXT, TransNeXtVariant
from qna.parts.head_router import RoutedHeads, why_no_routes
from qna.parts.losses import with_mean

ABOUT = About(
    title="MoH: Multi-Head Attention as Mixture-of-Head Attention",
    authors="Jin, Zhu, Yuan, Yan",
    venue="arXiv",
    arxiv="2410.11842",
    read="the authors' code, SkyworkAI/MoH at 2cefd57 (Apache-2.0), its plain form",
    differs="images of any size and aspect ratio, where the authors' network is built for one size of "
    "square; what halves the map begins a stage, where theirs is apart; the balance loss is "
    "returned, where theirs stands in a list of the class; the nano size is ours",
    status="exact",
)


@dataclass(frozen=True)
class MoHViTVariant(TransNeXtVariant):
    """A TransNeXt with routers.

    Attributes:
        shared_heads: per stage, heads that speak for every token.
        routed_heads: per stage, how many of the others a token chooses; where it is 0 all must be shared.
        balance: weight of the balance loss, the mean over the layers, in training, 0.01 in the authors';
            above 0 the network then gives `WithLosses`.
    """

    shared_heads: tuple[int, ...] = (3, 6, 3, 8)
    routed_heads: tuple[int, ...] = (0, 0, 6, 12)
    balance: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not self.balance >= 0:
            raise InvalidInput(f"balance must be at least 0, got {self.balance!r}")
        for name in ("shared_heads", "routed_heads"):
            counts = getattr(self, name)
            if len(counts) != len(self.depths):
                raise InvalidInput(f"{name} must be one number per stage of {len(self.depths)}, got {counts}")
        for i, heads in enumerate(self.heads()):
            if why := why_no_routes(heads, self.shared_heads[i], self.routed_heads[i]):
                raise InvalidInput(f"stage {i + 1}: {why}")

    def heads(self) -> tuple[int, ...]:
        """Per stage, those of its attention."""
        return tuple(self.dim * 2**i // self.head_dim for i in range(len(self.depths)))

    def active(self) -> float:
        """The part of all heads of the network that speaks for a token."""
        speaking = (s + r for s, r in zip(self.shared_heads, self.routed_heads, strict=True))
        weighed = sum(n * depth for n, depth in zip(speaking, self.depths, strict=True))
        return weighed / sum(n * depth for n, depth in zip(self.heads(), self.depths, strict=True))


class MoHViT(TransNeXt):
    """MoH-ViT (Jin et al., arXiv 2410.11842): `TransNeXt` with `qna.parts.head_router.RoutedHeads`.

    Every attention has a router, which reads what the attention reads. With `balance` above 0 the network in
    training gives `WithLosses` of the logits and "balance", that weight times the mean of the layers' losses.
    """

    @staticmethod
    def parts(variant: Any, in_chans: int, *, attn_drop_rate: float = 0.0) -> Parts:
        """Those of `TransNeXt`, with a router in every block."""
        parts = TransNeXt.parts(variant, in_chans, attn_drop_rate=attn_drop_rate)
        for i, stage in enumerate(parts.stages):
            counts = {"shared": variant.shared_heads[i], "routed": variant.routed_heads[i]}
            for mixer in _mixers(stage):
                mixer.gate_heads(
                    RoutedHeads(mixer.dim, mixer.num_heads, **counts, balanced=variant.balance > 0)
                )
        return parts

    def finish(self, variant: Any) -> None:
        """Draw the weights as the authors do, routers among them."""
        super().finish(variant)
        self.balance = variant.balance

    def forward(self, x: Tensor) -> Any:
        """(B, in_chans, H, W) -> logits (B, num_classes); in training with `balance`, `WithLosses`."""
        if not self.training or not self.balance:
            return super().forward(x)
        logits = super().forward(x)
        left = [loss for mixer in _mixers(self.stages) for loss in mixer.head_gate.take()]
        return with_mean(logits, "balance", self.balance, left)


def _mixers(module: nn.Module) -> list[Any]:
    return [m for m in module.modules() if hasattr(m, "gate_heads")]


def read(path: Path, model: str, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of `model` from a file of the authors; tables that follow from sizes are left out."""
    build = partial(MoHViT.of, MOH_VIT[model], **arguments)
    return read_authors(path, model, build, moh_authors_name, classifier="head", left_out=TABLES.fullmatch)


def moh_authors_name(key: str, network: TransNeXt) -> str:
    """What the authors call the tensor `key` of a `network`: TransNeXt's names, routers in the attention."""
    return re.sub(r"\.head_gate\.(wg(_\d)?)\.", r".\1.", authors_name(key, network))


AUTHORS = Authors(".pth", read)


def _of(name: str, parameters: int, shared: tuple[int, ...], routed: tuple[int, ...]) -> MoHViTVariant:
    """A TransNeXt of another size, with routers of so many parameters."""
    plain = TRANSNEXT[name]
    sizes = {f.name: getattr(plain, f.name) for f in fields(plain)}
    sizes["parameters"] = (plain.parameters or 0) + parameters
    return MoHViTVariant(**sizes, shared_heads=shared, routed_heads=routed)


# the number in a name is the percentage of heads that speak for a token
MOH_VIT = {
    "moh_vit_small_80": _of("transnext_small", 168_984, (3, 6, 3, 8), (0, 0, 6, 12)),
    "moh_vit_small_75": _of("transnext_small", 168_984, (3, 6, 3, 4), (0, 0, 6, 12)),
    "moh_vit_base_75": _of("transnext_base", 299_136, (4, 8, 4, 5), (0, 0, 8, 16)),
    "moh_vit_base_50": _of("transnext_base", 302_016, (2, 2, 2, 4), (2, 4, 6, 8)),
    # ours, for small images
    "moh_vit_nano_16": _of("transnext_nano_16", 768, (2, 1), (0, 2)),
}
