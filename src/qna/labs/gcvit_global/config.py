"""What the laboratory of global queries is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class GCViTGlobalConfig(PairedConfig):
    """Networks of one stage that differ in where the queries of every second block come from.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels, a multiple of 16.
        blocks: of the stage, two or more.
        window: positions per axis of a window, two or more.
        halvings: of the map, to make the global query of it.
        patch_size: pixels per axis of a position of the map.
    """

    data: Literal["fashion-mnist", "digits", "cifar10"] = "fashion-mnist"
    dim: int = 32
    blocks: int = 4
    window: int = 7
    halvings: int = 1
    patch_size: int = 2
    rates: tuple[float, ...] = (2e-3, 6e-3)

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "patch_size", "halvings")
        check_multiple(self, "dim", 16)
        if self.blocks < 2 or self.window < 2:
            raise InvalidInput(
                f"blocks={self.blocks} of window={self.window} have no second block or no window: both must "
                "be at least 2"
            )
