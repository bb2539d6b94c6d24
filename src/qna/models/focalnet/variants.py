"""The sizes of FocalNet, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qna._core.checks import natural, positive
from qna._core.errors import InvalidInput
from qna.models.family import Variant

# by how much each level's kernel is larger than the one before, in all published networks
FOCAL_FACTOR = 2
# of an overlapping stem, which has no other
OVERLAPPING_PATCH = 4


@dataclass(frozen=True)
class FocalNetVariant(Variant):
    """A network of focal modulation; each stage has twice the channels of the one before.

    Attributes:
        dim: channels of the first stage.
        depths: blocks per stage. Of one stage alone, an isotropic network, every block shows its map.
        focal_levels: convolutions of a modulation, one number or one per stage; 0 leaves the mean of the map.
        focal_windows: positions per axis of the first of them, odd, one number or one per stage; each further
            one has 2 more. Detectors begin at 9.
        normalize_modulator: what was gathered is divided by the number of its terms.
        norm_in_modulation: LayerNorm between a modulation's product and its last linear map.
        post_norm: LayerNorm after modulation and MLP, in the place of before.
        layer_scale: what branches are multiplied with at first; None for no such weights.
        overlapping: the stem is a convolution of 7x7 at stride 4, and what halves the map one of 3x3 at
            stride 2. Otherwise patches do not overlap.
        patch_size: pixels per axis of a position of the first map.
        mlp_ratio: hidden channels of the MLPs per channel.
        drop_path_rate: of the last block in training; it grows linearly from 0.
    """

    dim: int
    depths: tuple[int, ...]
    focal_levels: int | tuple[int, ...] = 2
    focal_windows: int | tuple[int, ...] = 3
    normalize_modulator: bool = False
    norm_in_modulation: bool = False
    post_norm: bool = False
    layer_scale: float | None = None
    overlapping: bool = False
    patch_size: int = 4
    mlp_ratio: int = 4
    drop_path_rate: float = 0.0

    def __post_init__(self):
        positive(
            type(self).__name__,
            **{name: getattr(self, name) for name in ("dim", "patch_size", "mlp_ratio")},
        )
        if not isinstance(self.depths, tuple | list) or not self.depths:
            raise InvalidInput(f"depths must be one number per stage, got {self.depths!r}")
        positive(type(self).__name__, **{f"depths[{i}]": n for i, n in enumerate(self.depths)})
        for name in ("focal_levels", "focal_windows"):
            numbers = self._per_stage(name)
            natural(type(self).__name__, **{f"{name}[{i}]": n for i, n in enumerate(numbers)})
        for name in ("normalize_modulator", "norm_in_modulation", "post_norm", "overlapping"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInput(f"{name} must be True or False, got {getattr(self, name)!r}")
        if not all(window % 2 for window in self._per_stage("focal_windows")):
            raise InvalidInput(f"focal_windows must be odd, got {self.focal_windows!r}")
        if self.overlapping and self.patch_size != OVERLAPPING_PATCH:
            raise InvalidInput(
                f"patch_size must be {OVERLAPPING_PATCH} where the stem is a convolution of 7x7, got "
                f"{self.patch_size}; with overlapping=False it may be any"
            )

    @property
    def isotropic(self) -> bool:
        """Whether no map is halved."""
        return len(self.depths) == 1

    def kernel_sizes(self, stage: int) -> tuple[int, ...]:
        """Of the levels of a stage's modulations."""
        first, levels = self._per_stage("focal_windows")[stage], self._per_stage("focal_levels")[stage]
        return tuple(first + FOCAL_FACTOR * level for level in range(levels))

    def _per_stage(self, name: str) -> tuple[int, ...]:
        numbers = getattr(self, name)
        if not isinstance(numbers, tuple | list):
            return (numbers,) * len(self.depths)
        if len(numbers) != len(self.depths):
            raise InvalidInput(
                f"{name} must be one number, or one for each stage of depths={self.depths}, got {numbers}"
            )
        return tuple(numbers)


_TINY = FocalNetVariant(96, (2, 2, 6, 2), drop_path_rate=0.2, parameters=28_427_116)
_SMALL = FocalNetVariant(96, (2, 2, 18, 2), drop_path_rate=0.3, parameters=49_891_216)
_BASE = FocalNetVariant(128, (2, 2, 18, 2), drop_path_rate=0.5, parameters=88_148_144)
_ISOTROPIC = FocalNetVariant(192, (12,), 3, patch_size=16, drop_path_rate=0.2, parameters=5_880_280)
# those for ImageNet-22k; with its 21,842 classes they are larger by 20,842 rows of the last layer
_LARGE = FocalNetVariant(
    192,
    (2, 2, 18, 2),
    3,
    5,
    post_norm=True,
    layer_scale=1e-4,
    overlapping=True,
    drop_path_rate=0.5,
    image_size=384,
    parameters=207_100_744,
)
_XLARGE = replace(_LARGE, dim=256, parameters=366_082_120)
_HUGE = replace(
    _LARGE, dim=352, focal_windows=3, norm_in_modulation=True, image_size=224, parameters=686_564_424
)
_FOUR = {"focal_levels": 4, "focal_windows": 3}

# timm has models of the plain names, in one of which the modulator is not normalised
FOCALNET = {
    # for ImageNet-1k: small and large receptive fields
    "qna_focalnet_tiny_srf": _TINY,
    "qna_focalnet_tiny_lrf": replace(_TINY, focal_levels=3, parameters=28_647_928),
    "qna_focalnet_small_srf": _SMALL,
    "qna_focalnet_small_lrf": replace(_SMALL, focal_levels=3, parameters=50_342_440),
    "qna_focalnet_base_srf": _BASE,
    "qna_focalnet_base_lrf": replace(_BASE, focal_levels=3, parameters=88_749_768),
    "qna_focalnet_tiny_iso": _ISOTROPIC,
    "qna_focalnet_small_iso": replace(_ISOTROPIC, dim=384, parameters=22_376_344),
    # unlike the other two
    "qna_focalnet_base_iso": replace(
        _ISOTROPIC, dim=768, post_norm=True, layer_scale=1e-4, parameters=87_237_400
    ),
    # focal levels
    "qna_focalnet_large_fl3": _LARGE,
    # the only one that is published with this
    "qna_focalnet_large_fl4": replace(_LARGE, **_FOUR, normalize_modulator=True, parameters=207_281_248),
    "qna_focalnet_xlarge_fl3": _XLARGE,
    "qna_focalnet_xlarge_fl4": replace(_XLARGE, **_FOUR, parameters=366_322_784),
    "qna_focalnet_huge_fl3": _HUGE,
    "qna_focalnet_huge_fl4": replace(_HUGE, **_FOUR, parameters=689_277_664),
    # ours, for small images: maps of 8x8 and 4x4 at the named size
    "qna_focalnet_nano_16": FocalNetVariant(32, (2, 2), patch_size=2, image_size=16, parameters=206_484),
}
