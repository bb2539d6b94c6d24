"""What the laboratory of averaged tokens and damaged images is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna._core.errors import InvalidInput
from qna.eval.corruptions import SEVERITIES
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class TAPCorruptionConfig(PairedConfig):
    """Vision transformers that are alike but for averaged tokens and the loss on their attention.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels, a multiple of 16, 16 a head.
        depth: blocks.
        patch_size: pixels per axis of a token.
        severity: of every corruption that the held-out images suffer.
    """

    data: Literal["fashion-mnist", "digits"] = "fashion-mnist"
    images: int = 4000
    dim: int = 48
    depth: int = 4
    patch_size: int = 4
    severity: int = 3
    epochs: int = 5
    batch: int = 50
    rates: tuple[float, ...] = (2e-3,)

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "depth", "patch_size")
        check_multiple(self, "dim", 16)
        if self.severity not in SEVERITIES:
            raise InvalidInput(f"severity must be 1 to 5, got {self.severity}")
