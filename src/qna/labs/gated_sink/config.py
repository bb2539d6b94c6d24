"""What the laboratory of gates and attention sinks is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna.labs.small_vit import SmallViTConfig


@dataclass(frozen=True)
class GatedSinkConfig(SmallViTConfig):
    """Vision transformers that are alike but for gates on their heads' output."""

    images: int = 6000
