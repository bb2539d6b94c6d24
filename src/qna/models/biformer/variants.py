"""The sizes of BiFormer, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qna._core.checks import positive
from qna._core.errors import InvalidInput
from qna.models.family import Variant


@dataclass(frozen=True)
class BiFormerVariant(Variant):
    """A network of bi-level routing attention; each stage has twice the channels of the one before.

    Attributes:
        dim: channels of the first stage.
        depths: blocks per stage.
        topks: per stage how many regions a region attends; None for attention to the whole map, which has 8
            heads whatever its channels, and other scales and biases.
        mlp_ratio: hidden channels of the MLPs per channel.
        regions: regions per axis, a number that does not grow with the map.
        head_dim: channels per head of routing attention.
        overlapping: whether the stem and what halves the map are convolutions of 3x3, and blocks begin with a
            depthwise one. Otherwise they are linear maps of patches, as in Swin, and blocks do not.
        border: what a map that regions do not divide is filled up with, see `BiLevelRoutingAttention2d`.
        enhances_values: whether LePE of the attention to the whole map is made of its values, as in the
            authors' second code, and not of its input.
        drop_path_rate: of the last block in training; it grows linearly from 0.
    """

    dim: int
    depths: tuple[int, ...]
    topks: tuple[int | None, ...] = (1, 4, 16, None)
    mlp_ratio: int = 3
    regions: int = 7
    head_dim: int = 32
    overlapping: bool = True
    border: str = "input"
    enhances_values: bool = False
    drop_path_rate: float = 0.0

    def __post_init__(self):
        sizes = ("dim", "mlp_ratio", "regions", "head_dim")
        positive(type(self).__name__, **{name: getattr(self, name) for name in sizes})
        for name in ("depths", "topks"):
            if not isinstance(getattr(self, name), tuple | list) or not getattr(self, name):
                raise InvalidInput(f"{name} must be one number per stage, got {getattr(self, name)!r}")
        if len(self.depths) != len(self.topks):
            raise InvalidInput(
                f"a BiFormer needs one number per stage in depths={self.depths} and in topks={self.topks}"
            )
        if not all(type(n) is int and n > 0 for n in self.depths):
            raise InvalidInput(f"depths must hold positive integers, got {self.depths!r}")
        if not all(k is None or (type(k) is int and k > 0) for k in self.topks):
            raise InvalidInput(f"topks must hold positive integers, or None, got {self.topks!r}")
        if self.dim % self.head_dim:
            raise InvalidInput(f"head_dim must divide dim={self.dim}, got {self.head_dim}")


_SMALL = BiFormerVariant(64, (4, 4, 18, 4), drop_path_rate=0.15, parameters=25_536_232)
_STL = BiFormerVariant(
    96, (2, 2, 6, 2), mlp_ratio=4, overlapping=False, drop_path_rate=0.1, parameters=28_372_552
)

BIFORMER_SIZES = {
    # the paper's, for ImageNet-1k
    "biformer_tiny": replace(_SMALL, depths=(2, 2, 8, 2), drop_path_rate=0.0, parameters=13_142_760),
    "biformer_small": _SMALL,
    "biformer_base": replace(_SMALL, dim=96, drop_path_rate=0.0, parameters=56_804_968),
    # of Swin-T's layout; the second as its authors wrote it anew
    "biformer_stl": _STL,
    "biformer_stl_nchw": replace(_STL, border="projected", enhances_values=True),
    # ours, for small images: maps of 8x8 and 4x4 at the named size
    "biformer_nano_32": BiFormerVariant(
        32, (2, 2), (4, None), regions=4, head_dim=16, image_size=32, parameters=200_168
    ),
}
