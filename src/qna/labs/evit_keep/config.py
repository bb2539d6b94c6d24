"""What the laboratory of dropped tokens is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_multiple
from qna.labs.small_vit import SmallViTConfig


@dataclass(frozen=True)
class EViTKeepConfig(SmallViTConfig):
    """Vision transformers that lose tokens in three of their blocks, in training and after it.

    Attributes:
        depth: blocks; a quarter, a half and three quarters of the way tokens are dropped.
        train_keep: part of the image tokens that stays in training; 1 trains one network with all of them,
            from which every chooser drops afterwards.
        keep: parts of the image tokens that stay in each of those blocks.
        time_size: pixels per axis of the images whose inference is timed, with patches of the same size.
        seconds: at least so long is every network timed.
    """

    images: int = 3000
    depth: int = 8
    train_keep: float = 0.7
    keep: tuple[float, ...] = (0.9, 0.7, 0.5, 0.3)
    time_size: int = 56
    seconds: float = 0.5
    epochs: int = 6

    def __post_init__(self):
        super().__post_init__()
        check_counts(self, "time_size")
        check_multiple(self, "depth", 4)
        if not 0 < self.train_keep <= 1:
            raise InvalidInput(f"train_keep must be above 0 and at most 1, got {self.train_keep}")
        if not self.keep or not all(0 < rate < 1 for rate in self.keep):
            raise InvalidInput(f"keep must be parts between 0 and 1, one or more, got {self.keep}")
        if not self.seconds > 0:
            raise InvalidInput(f"seconds must be above 0, got {self.seconds}")
