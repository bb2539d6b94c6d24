"""What the laboratory of Terminator's convergence is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.paired_config import PairedConfig


@dataclass(frozen=True)
class TerminatorConvergenceConfig(PairedConfig):
    """A Terminator of three blocks beside a residual network of about as many parameters.

    Attributes:
        data: what they learn; digits comes with scikit-learn.
        dim: channels of the first block's map, a multiple of 12; the next have twice as many.
        width: channels of the residual network's first stage.
        shrink: images are averaged over squares of so many pixels per axis.
    """

    data: Literal["fashion-mnist", "digits"] = "fashion-mnist"
    images: int = 800
    held_out: int = 500
    dim: int = 12
    width: int = 12
    shrink: int = 2
    epochs: int = 3
    batch: int = 32
    rates: tuple[float, ...] = (1e-3, 4e-3)
    minutes: float = 6.0

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "dim", "width", "shrink")
        check_multiple(self, "dim", 12)
