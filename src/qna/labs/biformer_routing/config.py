"""What the laboratory of bi-level routing is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class BiFormerRoutingConfig(PairedConfig):
    """Networks of one stage that differ in which regions a region attends, and one layer at a large map.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels, a multiple of 16.
        blocks: of the stage.
        patch_size: pixels per axis of a position of the map.
        regions: regions per axis.
        topk: regions that a region attends, fewer than there are.
        side: positions per axis of the map on which the layer is measured.
        side_dim: its channels, a multiple of 32.
        seconds: at least so long is every form of the layer timed.
    """

    data: Literal["fashion-mnist", "digits", "cifar10"] = "fashion-mnist"
    dim: int = 32
    blocks: int = 2
    patch_size: int = 2
    regions: int = 7
    topk: int = 4
    rates: tuple[float, ...] = (8e-3,)
    side: int = 160
    side_dim: int = 64
    seconds: float = 2.0

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "blocks", "patch_size", "regions", "topk", "side")
        check_multiple(self, "dim", 16)
        check_multiple(self, "side_dim", 32)
        if self.topk >= self.regions**2:
            raise InvalidInput(f"topk must be below the {self.regions**2} regions, got {self.topk}")
        if not self.seconds > 0:
            raise InvalidInput(f"seconds must be above 0, got {self.seconds:g}")
