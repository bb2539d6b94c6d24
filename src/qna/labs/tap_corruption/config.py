"""What the laboratory of averaged tokens and damaged images is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.eval.corruptions import SEVERITIES
from qna.labs.small_vit import SmallViTConfig


@dataclass(frozen=True)
class TAPCorruptionConfig(SmallViTConfig):
    """Vision transformers that are alike but for averaged tokens and the loss on their attention.

    Attributes:
        severity: of every corruption that the held-out images suffer.
    """

    images: int = 4000
    depth: int = 4
    severity: int = 3

    def __post_init__(self):
        super().__post_init__()
        if self.severity not in SEVERITIES:
            raise InvalidInput(f"severity must be 1 to 5, got {self.severity}")
