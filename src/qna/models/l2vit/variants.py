"""The sizes of L2ViT, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qna._core.checks import natural, positive
from qna._core.errors import InvalidInput
from qna.models.family import Variant


@dataclass(frozen=True)
class L2ViTVariant(Variant):
    """An L2ViT; each stage has twice the channels of the one before.

    Attributes:
        dim: channels of the first stage.
        depths: blocks per stage; of each stage the second, the fourth and so on have linear attention, the
            others windows.
        window_size: positions per axis of a window.
        concentration_size: positions per axis of the windows of local concentration, odd; 0 for none.
        clamp: the least denominator of linear attention.
        mlp_ratio: hidden channels of the MLPs per channel.
        head_dim: channels per head.
        drop_path_rate: of the last block in training; it grows linearly from 0.
    """

    dim: int
    depths: tuple[int, ...]
    window_size: int = 7
    concentration_size: int = 7
    clamp: float = 100.0
    mlp_ratio: int = 4
    head_dim: int = 32
    drop_path_rate: float = 0.0

    def __post_init__(self):
        sizes = ("dim", "window_size", "mlp_ratio", "head_dim")
        positive(type(self).__name__, **{name: getattr(self, name) for name in sizes})
        natural(type(self).__name__, concentration_size=self.concentration_size)
        if not isinstance(self.depths, tuple | list) or not self.depths:
            raise InvalidInput(f"depths must be one number per stage, got {self.depths!r}")
        if not all(type(n) is int and n > 0 for n in self.depths):
            raise InvalidInput(f"depths must hold positive integers, got {self.depths!r}")
        if self.dim % self.head_dim:
            raise InvalidInput(f"head_dim must divide dim={self.dim}, got {self.head_dim}")
        if self.dim % 2:
            raise InvalidInput(f"dim must be even, as the stem begins with half of it, got {self.dim}")


_BASE = L2ViTVariant(128, (2, 2, 18, 2), drop_path_rate=0.3, parameters=88_577_188)

L2VIT = {
    # the authors', for ImageNet-1k; they print a rate of stochastic depth for the base size alone
    "l2vit_tiny": L2ViTVariant(96, (2, 2, 6, 2), parameters=28_596_781),
    "l2vit_small": L2ViTVariant(96, (2, 2, 18, 2), parameters=50_199_157),
    "l2vit_base": _BASE,
    # tuned at this size, after ImageNet-22k
    "l2vit_base_384": replace(_BASE, window_size=12, image_size=384, drop_path_rate=0.2),
    # ours, for small images: maps of 8x8 and 4x4 at the named size
    "l2vit_nano_32": L2ViTVariant(
        32, (2, 2), window_size=4, concentration_size=5, head_dim=16, image_size=32, parameters=212_334
    ),
}
