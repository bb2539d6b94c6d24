"""What the laboratory of reduced attention is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna.labs.config_checks import check_counts
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class MinimalOrderConfig(PairedConfig):
    """Transformers of one depth, whose blocks have ever fewer matrices.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels of all but the narrow one.
        depth: blocks.
        mlp_ratio: hidden channels of MLPs per channel, of those that have any.
        patch_size: pixels per axis of a token.
    """

    data: Literal["fashion-mnist", "cifar10", "digits"] = "fashion-mnist"
    images: int = 4000
    dim: int = 64
    depth: int = 6
    mlp_ratio: int = 4
    patch_size: int = 7
    epochs: int = 5
    batch: int = 50
    rates: tuple[float, ...] = (1e-3, 3e-3)
    minutes: float = 6.0

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "dim", "depth", "mlp_ratio", "patch_size")
