"""What the laboratory of shifted windows is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class SwinShiftConfig(PairedConfig):
    """Networks of one stage that differ in where the windows of every second block lie.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels, a multiple of 16.
        blocks: of the stage, two or more; every second is shifted where any is.
        window: positions per axis of a window, two or more.
        patch_size: pixels per axis of a position of the map.
    """

    data: Literal["fashion-mnist", "digits", "cifar10"] = "fashion-mnist"
    dim: int = 32
    blocks: int = 4
    window: int = 4
    patch_size: int = 2
    rates: tuple[float, ...] = (2e-3, 6e-3)

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "patch_size")
        check_multiple(self, "dim", 16)
        if self.blocks < 2 or self.window < 2:
            raise InvalidInput(
                f"there is nothing to shift in blocks={self.blocks} of window={self.window}: both must be at "
                "least 2"
            )
