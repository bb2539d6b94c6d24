"""What the laboratory of varied-size windows and image sizes is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class VSASizeConfig(PairedConfig):
    """Networks of two stages that differ in where the windows of their attention lie.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        sizes: pixels per axis to which the same images are brought, growing; networks are trained at each.
        dim: channels of the first stage, a multiple of 8.
        blocks: of a stage.
        patch_size: pixels per axis of a position of the first map.
        window: positions per axis of a window.
        seeds: training runs of each network at each size and rate.
    """

    data: Literal["fashion-mnist", "digits"] = "fashion-mnist"
    images: int = 1000
    held_out: int = 500
    sizes: tuple[int, ...] = (16, 48)
    dim: int = 16
    blocks: int = 2
    patch_size: int = 2
    window: int = 4
    batch: int = 32
    rates: tuple[float, ...] = (6e-3,)
    minutes: float = 4.0

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "blocks", "patch_size", "window")
        check_multiple(self, "dim", 8)
        # at others the control would see zeros that are no part of the claim
        step = 2 * self.patch_size * self.window
        if len(self.sizes) < 2 or list(self.sizes) != sorted(set(self.sizes)):
            raise InvalidInput(f"sizes must grow, two or more, got {self.sizes}")
        if not all(size > 0 and size % step == 0 for size in self.sizes):
            raise InvalidInput(
                f"sizes must be multiples of {step}, so that windows divide both maps, got {self.sizes}"
            )
