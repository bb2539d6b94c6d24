"""What the laboratory of dilated neighbourhoods is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class DiNATContextConfig(PairedConfig):
    """Networks of one stage that differ in the dilation, or in the size, of their neighbourhoods.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels, a multiple of 16.
        blocks: of the stage; every second is dilated where any is.
        patch_size: pixels per axis of a position of the map.
    """

    data: Literal["fashion-mnist", "digits", "cifar10"] = "fashion-mnist"
    dim: int = 32
    blocks: int = 2
    patch_size: int = 2
    rates: tuple[float, ...] = (8e-3, 1.6e-2)

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "blocks", "patch_size")
        check_multiple(self, "dim", 16)
