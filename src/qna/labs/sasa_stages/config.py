"""What the laboratory of stand-alone self-attention is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class SasaStagesConfig(PairedConfig):
    """Small ResNets that differ in which stages attend.

    Attributes:
        data: what they classify; digits comes with scikit-learn.
        widths: channels of the spatial layer, per stage; multiples of 8.
        window: positions per axis that a position attends, odd.
    """

    data: Literal["fashion-mnist", "digits"] = "fashion-mnist"
    images: int = 1000
    widths: tuple[int, ...] = (8, 16, 32)
    window: int = 5
    epochs: int = 5
    batch: int = 32
    rates: tuple[float, ...] = (4e-3, 1e-2)

    def __post_init__(self):
        super().__post_init__()
        if len(self.widths) < 2 or not all(width >= 8 and width % 8 == 0 for width in self.widths):
            raise InvalidInput(f"widths must be multiples of 8, two or more, got {self.widths}")
        if self.window < 1 or self.window % 2 == 0:
            raise InvalidInput(f"window must be odd, got {self.window}")
