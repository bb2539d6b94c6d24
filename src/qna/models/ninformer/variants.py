"""The sizes of NiNformer, as data: a new size is a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qna._core.checks import per_axis, positive, rate
from qna._core.errors import InvalidInput
from qna.models.family import Variant


@dataclass(frozen=True)
class NiNformerVariant(Variant):
    """A row of blocks on a map that stays as it is.

    Attributes:
        dim: channels.
        hidden: hidden positions and channels of all MLPs.
        depth: blocks.
        patch_size: pixels per axis of a position; divides `image_size`, which is the only one taken.
        mlp_drop: dropout in all MLPs, in training.
        drop_path_rate: of the last block in training; it grows linearly from 0. The authors have none.
        image_size: pixels per axis, or height and width, of the only images that are taken; a caller changes
            it by `img_size`, as of timm's networks of one size.
    """

    dim: int = 256
    hidden: int = 512
    depth: int = 4
    patch_size: int = 4
    mlp_drop: float = 0.5
    drop_path_rate: float = 0.0
    image_size: int | tuple[int, int] = 32  # pyright: ignore[reportIncompatibleVariableOverride]

    def __post_init__(self):
        names = ("dim", "hidden", "depth", "patch_size")
        positive(type(self).__name__, **{name: getattr(self, name) for name in names})
        rate(type(self).__name__, mlp_drop=self.mlp_drop)

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the images."""
        height, width = per_axis("img_size", self.image_size, 2, minimum=1)
        return height, width

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the map.

        Asked when a network is built, since the size of patches and that of images are told one by one.

        Raises:
            InvalidInput: the patches do not divide the images.
        """
        if any(pixels % self.patch_size for pixels in self.pixels):
            up = tuple(-(-pixels // self.patch_size) * self.patch_size for pixels in self.pixels)
            raise InvalidInput(
                f"patch_size must divide both sides of the images, got patch_size={self.patch_size} and "
                f"img_size={self.pixels}; try img_size={up}"
            )
        height, width = self.pixels
        return height // self.patch_size, width // self.patch_size

    @classmethod
    def settings(cls) -> set[str]:
        """Names of the fields that a caller may change; not the images' size, which has a name already."""
        return super().settings() - {"image_size"}


_CIFAR = NiNformerVariant(parameters=2_906_600)

NINFORMER = {
    # as published
    "ninformer_cifar": _CIFAR,
    # ours, small: maps of 8x8
    "ninformer_nano_16": replace(
        _CIFAR, dim=32, hidden=48, depth=3, patch_size=2, image_size=16, parameters=74_840
    ),
}
