"""What the laboratory of spectral and attending blocks is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class SpectFormerShareConfig(PairedConfig):
    """SpectFormers of one row of blocks that differ in how many of them, the first, are spectral.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels, a multiple of 16, 16 a head.
        depth: blocks.
        spectral: spectral blocks of the mixed network, from 1 to `depth` - 1; published sizes have four of
            twelve.
        patch_size: pixels per axis of a position of the map.
    """

    data: Literal["fashion-mnist", "digits", "cifar10"] = "fashion-mnist"
    images: int = 2000
    dim: int = 48
    depth: int = 6
    spectral: int = 2
    patch_size: int = 4
    batch: int = 32
    rates: tuple[float, ...] = (1e-3, 3e-3)

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "patch_size")
        check_multiple(self, "dim", 16)
        if not 1 <= self.spectral < self.depth:
            raise InvalidInput(
                f"of depth={self.depth} blocks some must be spectral and some not, got "
                f"spectral={self.spectral}"
            )
