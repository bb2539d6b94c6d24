"""What the laboratory of gates and attention sinks is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class GatedSinkConfig(PairedConfig):
    """Vision transformers that are alike but for gates on their heads' output.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels, a multiple of 16, 16 a head.
        depth: blocks.
        patch_size: pixels per axis of a token.
    """

    data: Literal["fashion-mnist", "digits"] = "fashion-mnist"
    images: int = 6000
    dim: int = 48
    depth: int = 6
    patch_size: int = 4
    epochs: int = 5
    batch: int = 50
    rates: tuple[float, ...] = (2e-3,)

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "depth", "patch_size")
        check_multiple(self, "dim", 16)
