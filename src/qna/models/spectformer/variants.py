"""The sizes of SpectFormer, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.checks import natural, not_negative, positive
from qna._core.errors import InvalidInput
from qna.models.family import Variant


@dataclass(frozen=True)
class SpectFormerVariant(Variant):
    """A SpectFormer of one row of blocks.

    Attributes:
        dim: channels.
        depth: blocks.
        num_heads: of the attention.
        spectral: how many blocks, the first, are spectral; the others attend. The paper's alpha.
        mlp_ratio: hidden channels of the MLPs per channel.
        patch_size: pixels per axis of a position of the map.
        drop_path_rate: of the last block in training; it grows linearly from 0.
    """

    dim: int
    depth: int
    num_heads: int
    spectral: int = 4
    mlp_ratio: int = 4
    patch_size: int = 16
    drop_path_rate: float = 0.0

    def __post_init__(self):
        sizes = ("dim", "depth", "num_heads", "mlp_ratio", "patch_size", "image_size")
        positive(type(self).__name__, **{name: getattr(self, name) for name in sizes})
        natural(type(self).__name__, spectral=self.spectral)
        if self.spectral > self.depth:
            raise InvalidInput(f"of depth={self.depth} blocks at most all are spectral, got {self.spectral}")


@dataclass(frozen=True)
class SpectFormerHVariant(Variant):
    """A hierarchical SpectFormer.

    Attributes:
        stem_dim: channels of the stem's first three convolutions.
        dims: channels per stage.
        num_heads: per stage, of its attention; the last also of the class attention.
        depths: blocks per stage.
        mlp_ratios: hidden channels of the MLPs per channel, per stage.
        spectral: how many stages, the first, are spectral; the others attend.
        aux_weight: above 0 there is a second head, on every position, and it is trained with this weight.
        drop_path_rate: of the last block in training; it grows linearly from 0.
    """

    stem_dim: int
    dims: tuple[int, ...]
    num_heads: tuple[int, ...]
    depths: tuple[int, ...]
    mlp_ratios: tuple[int, ...] = (8, 8, 4, 4)
    spectral: int = 2
    aux_weight: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self):
        positive(type(self).__name__, stem_dim=self.stem_dim, image_size=self.image_size)
        natural(type(self).__name__, spectral=self.spectral)
        for name in (per_stage := ("dims", "num_heads", "depths", "mlp_ratios")):
            numbers = getattr(self, name)
            if not isinstance(numbers, tuple | list) or not numbers:
                raise InvalidInput(f"{name} must be one number per stage, got {numbers!r}")
            if not all(type(n) is int and n > 0 for n in numbers):
                raise InvalidInput(f"{name} must hold positive integers, got {numbers!r}")
        if len({len(getattr(self, name)) for name in per_stage}) != 1:
            given = ", ".join(f"{name}={getattr(self, name)}" for name in per_stage)
            raise InvalidInput(f"a SpectFormer needs one number per stage in each of {given}")
        if self.spectral > len(self.depths):
            raise InvalidInput(f"of {len(self.depths)} stages at most all are spectral, got {self.spectral}")
        not_negative(type(self).__name__, aux_weight=self.aux_weight)


# heads of 64 channels, where the authors' file has 6 heads whatever the channels
SPECTFORMER = {
    "spectformer_ti": SpectFormerVariant(256, 12, 4, parameters=9_158_376),
    "spectformer_xs": SpectFormerVariant(384, 12, 6, parameters=20_028_520),
    "spectformer_s": SpectFormerVariant(384, 19, 6, parameters=32_449_768),
    "spectformer_b": SpectFormerVariant(512, 19, 8, parameters=57_159_656),
    # ours, for small images: maps of 8x8 at the named size
    "spectformer_nano_32": SpectFormerVariant(
        48, 4, 3, spectral=2, patch_size=4, image_size=32, parameters=156_472
    ),
}

# the published counts hold the second head: 22,226,928, 33,052,880 and 54,675,792
SPECTFORMER_H = {
    "spectformer_h_s": SpectFormerHVariant(
        32, (64, 128, 320, 448), (2, 4, 10, 14), (3, 4, 6, 3), parameters=21_777_928
    ),
    "spectformer_h_b": SpectFormerHVariant(
        64, (64, 128, 320, 512), (2, 4, 10, 16), (3, 4, 12, 3), parameters=32_539_880
    ),
    "spectformer_h_l": SpectFormerHVariant(
        64, (96, 192, 384, 512), (3, 6, 12, 16), (3, 6, 18, 3), parameters=54_162_792
    ),
    # ours, for small images: maps of 8x8 and 4x4 at the named size
    "spectformer_h_nano_32": SpectFormerHVariant(
        16, (32, 64), (2, 4), (2, 2), mlp_ratios=(4, 4), spectral=1, image_size=32, parameters=275_288
    ),
}
