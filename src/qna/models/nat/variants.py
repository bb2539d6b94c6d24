"""The sizes of NAT, DiNAT and DiNAT_s, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from qna._core.checks import positive
from qna._core.errors import InvalidInput
from qna.models.family import Variant


@dataclass(frozen=True)
class NATVariant(Variant):
    """A network of neighbourhood attention; each stage has twice the channels of the one before.

    Attributes:
        dim: channels of the first stage.
        depths: blocks per stage.
        mlp_ratio: hidden channels of the MLPs per channel.
        dilations: per stage the dilation of every second block, from the second on; the others have 1. Where
            the window of ``kernel_size * dilation`` positions is larger than a map, the map is filled up.
        head_dim: channels per head.
        kernel_size: positions per axis of a neighbourhood.
        layer_scale: what branches are multiplied with at first; None for no such weights.
        overlapping: whether the stem and what halves the map are convolutions of 3x3 at stride 2, as in NAT
            and DiNAT. Otherwise they are linear maps of patches, as in Swin and DiNAT_s.
        patch_size: pixels per axis of a position of the first map; with `overlapping` a power of 2.
        drop_path_rate: of the last block in training; it grows linearly from 0.
        weight_std: of the weights of linear maps at first: the authors', for hundreds of channels. None for
            what keeps the variance: with a few tens of channels branches would begin near zero, and learn
            little in short training.
    """

    dim: int
    depths: tuple[int, ...]
    mlp_ratio: int
    dilations: tuple[int, ...] = (1, 1, 1, 1)
    head_dim: int = 32
    kernel_size: int = 7
    layer_scale: float | None = None
    overlapping: bool = True
    patch_size: int = 4
    drop_path_rate: float = 0.0
    weight_std: float | None = 0.02

    def __post_init__(self):
        positive(
            type(self).__name__,
            **{name: getattr(self, name) for name in ("dim", "mlp_ratio", "head_dim", "patch_size")},
        )
        for name in ("depths", "dilations"):
            numbers = getattr(self, name)
            if not isinstance(numbers, tuple | list) or not numbers:
                raise InvalidInput(f"{name} must be one number per stage, got {numbers!r}")
            if not all(type(n) is int and n > 0 for n in numbers):
                raise InvalidInput(f"{name} must hold positive integers, got {numbers!r}")
        if len(self.depths) != len(self.dilations):
            raise InvalidInput(
                f"a NAT needs one number per stage in depths={self.depths} and in dilations={self.dilations}"
            )
        if self.dim % self.head_dim:
            raise InvalidInput(f"head_dim must divide dim={self.dim}, got {self.head_dim}")
        if self.weight_std is not None and not 0 < self.weight_std < inf:
            raise InvalidInput(f"weight_std must be above 0 or None, got {self.weight_std!r}")
        if self.overlapping and (self.patch_size < 2 or self.patch_size & (self.patch_size - 1)):
            raise InvalidInput(
                "patch_size must be a power of 2, of at least 2, where the stem is made of convolutions at "
                f"stride 2, got {self.patch_size}; with overlapping=False it may be any"
            )

    def dilation_of(self, stage: int, block: int) -> int:
        """Of a block, both counted from 0."""
        return self.dilations[stage] if block % 2 else 1


_DILATED, _DILATED_384 = (8, 4, 2, 1), (13, 6, 3, 1)
_MINI = NATVariant(64, (3, 4, 6, 5), 3, drop_path_rate=0.2, parameters=19_984_174)
_TINY = NATVariant(64, (3, 4, 18, 5), 3, drop_path_rate=0.2, parameters=27_901_582)
_SMALL = NATVariant(96, (3, 4, 18, 5), 2, drop_path_rate=0.3, parameters=50_719_681)
_BASE = NATVariant(128, (3, 4, 18, 5), 2, layer_scale=1e-5, drop_path_rate=0.5, parameters=89_769_652)
_LARGE = NATVariant(192, (3, 4, 18, 5), 2, drop_path_rate=0.35, parameters=200_943_514)
# for small images: maps of 8x8 and 4x4 at the named size
_NANO = NATVariant(
    *(32, (2, 2), 2, (1, 1)), head_dim=16, kernel_size=3, patch_size=2, weight_std=None, image_size=16
)


def _swin(dim: int, depths: tuple[int, ...], rate: float, parameters: int) -> NATVariant:
    return NATVariant(dim, depths, 4, _DILATED, overlapping=False, drop_path_rate=rate, parameters=parameters)


NAT_SIZES = {
    # the paper's, for ImageNet-1k
    "nat_mini": _MINI,
    "nat_tiny": _TINY,
    "nat_small": replace(_SMALL, layer_scale=1e-5, parameters=50_743_297),
    "nat_base": _BASE,
    # ours
    "nat_nano_16": replace(_NANO, parameters=168_980),
}

DINAT_SIZES = {
    # the paper's; dilated windows fill the maps of images of 224 pixels, or of 384
    "dinat_mini": replace(_MINI, dilations=_DILATED),
    "dinat_tiny": replace(_TINY, dilations=_DILATED),
    # unlike NAT's without layer scale
    "dinat_small": replace(_SMALL, dilations=_DILATED),
    "dinat_base": replace(_BASE, dilations=_DILATED),
    "dinat_large": replace(_LARGE, dilations=_DILATED),
    "dinat_large_384": replace(_LARGE, dilations=_DILATED_384, image_size=384),
    "dinat_large_384_11x11": replace(
        _LARGE, dilations=_DILATED, kernel_size=11, image_size=384, parameters=201_144_250
    ),
    "dinat_s_tiny": _swin(96, (2, 2, 6, 2), 0.2, 28_288_354),
    "dinat_s_small": _swin(96, (2, 2, 18, 2), 0.3, 49_606_258),
    "dinat_s_base": _swin(128, (2, 2, 18, 2), 0.5, 87_768_224),
    "dinat_s_large": _swin(192, (2, 2, 18, 2), 0.35, 196_532_476),
    "dinat_s_large_384": replace(
        _swin(192, (2, 2, 18, 2), 0.35, 196_532_476), dilations=_DILATED_384, image_size=384
    ),
    # ours
    "dinat_s_nano_16": replace(_NANO, dilations=(2, 1), overlapping=False, parameters=158_388),
}
