"""What the laboratory of local concentration is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class L2ViTConcentrationConfig(PairedConfig):
    """Networks of one stage that differ behind attention of the whole map, and layers over growing maps.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels, a multiple of 16.
        patch_size: pixels per axis of a position of the map.
        probed: held-out images whose context is looked at.
        sides: positions per axis of the maps on which both layers are timed, ascending.
        largest: positions per axis of the map on which linear attention alone is timed, above the others.
        seconds: at least so long is every layer timed.
    """

    data: Literal["fashion-mnist", "digits", "cifar10"] = "fashion-mnist"
    images: int = 1000
    dim: int = 32
    patch_size: int = 2
    probed: int = 32
    sides: tuple[int, ...] = (32, 64, 128)
    largest: int = 512
    seconds: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "patch_size", "probed")
        check_multiple(self, "dim", 16)
        sides = (*self.sides, self.largest)
        if len(sides) < 3 or list(sides) != sorted(set(sides)) or sides[0] < 1:
            raise InvalidInput(
                f"sides must be two or more, ascending and below largest={self.largest}, got {self.sides}"
            )
        if not self.seconds > 0:
            raise InvalidInput(f"seconds must be above 0, got {self.seconds:g}")
