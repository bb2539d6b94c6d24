"""What the laboratory of OverLoCK's context is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class OverLoCKContextConfig(PairedConfig):
    """Networks that differ in where their kernels come from.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        image_size: pixels per axis to which images are enlarged.
        fields: pixels per axis of the images on which receptive fields are measured, from small to large. A
            field is cut off where an image ends.
    """

    data: Literal["fashion-mnist", "digits"] = "fashion-mnist"
    images: int = 1000
    held_out: int = 500
    image_size: int = 64
    fields: tuple[int, ...] = (256, 512)
    epochs: int = 3
    batch: int = 32
    rates: tuple[float, ...] = (4e-3,)

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "image_size")
        sizes = self.fields
        if len(sizes) < 2 or sizes[0] < 32 or sorted(set(sizes)) != list(sizes):
            raise InvalidInput(
                f"fields must be two sizes or more, from small to large and none below 32 pixels, got {sizes}"
            )
