"""What the laboratory of blocks with a halo is told."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class HaloBlocksConfig(PairedConfig):
    """Layers, then networks of one stage, that differ in blocks and halos.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        width: channels of the attention, a multiple of 8; twice as many outside.
        blocks: bottlenecks of the stage.
        block_size: queries per axis of a block, even.
        patch_size: pixels per axis of a position of the map.
        seconds: time to spend on the calls of one layer in one mode.
    """

    data: Literal["fashion-mnist", "digits", "cifar10"] = "fashion-mnist"
    images: int = 1000
    width: int = 16
    blocks: int = 3
    block_size: int = 4
    patch_size: int = 2
    rates: tuple[float, ...] = (6e-3, 1.5e-2)
    seconds: float = 1.0
    minutes: float = 6.0

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "blocks", "patch_size")
        check_multiple(self, "width", 8)
        if self.block_size < 2 or self.block_size % 2:
            raise InvalidInput(f"block_size must be even, of at least 2, got {self.block_size}")
        if not 0 < self.seconds < inf:
            raise InvalidInput(f"seconds must be above 0, got {self.seconds:g}")
