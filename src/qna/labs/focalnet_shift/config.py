"""What the laboratory of focal modulation and shifts is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class FocalNetShiftConfig(PairedConfig):
    """Networks of two stages that differ in what mixes positions.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels of the first stage, a multiple of 16.
        blocks: of a stage; every second of windows is shifted.
        patch_size: pixels per axis of a position of the first map.
        window: positions per axis of a window.
        margin: pixels of black around an image, so that a shifted one is whole.
        shifts: pixels along both axes by which images are moved, in four directions.
        epochs: passes over the training images, none of which is moved.
    """

    data: Literal["fashion-mnist", "digits"] = "fashion-mnist"
    held_out: int = 500
    dim: int = 16
    blocks: int = 2
    patch_size: int = 2
    window: int = 5
    margin: int = 6
    shifts: tuple[int, ...] = (2, 4)
    epochs: int = 5
    batch: int = 32
    rates: tuple[float, ...] = (4e-3, 1e-2)

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "blocks", "patch_size", "window", "margin")
        check_multiple(self, "dim", 16)
        if not self.shifts or not all(1 <= shift <= self.margin for shift in self.shifts):
            raise InvalidInput(
                f"shifts must be pixels from 1 to margin={self.margin}, one or more, got {self.shifts}"
            )
