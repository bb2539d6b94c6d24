"""What the laboratory of segmentation is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_minutes, check_rates


@dataclass(frozen=True)
class QnASegmentationConfig:
    """Two networks of equal size that learn the masks of composed scenes.

    Attributes:
        scenes: of what: stamps of Tux Paint on photographs, or shapes drawn for the purpose, which need no
            files.
        stamps: a folder with a folder of stamps per class instead of Tux Paint's.
        photos: a folder of photographs instead of scikit-image's.
        images: scenes to train on.
        held_out: scenes to judge on, of other stamps and photographs.
        size: side of a scene, in pixels.
        epochs: passes over the training scenes.
        rates: learning rates per 256 images; of each network the better one counts.
        seeds: training runs of each network at each rate.
        minutes: the budget in CPU minutes.
        seed: the first seed of the training runs; the scenes are the same for all.
    """

    scenes: Literal["stamps", "shapes"] = "stamps"
    stamps: Path | None = None
    photos: Path | None = None
    images: int = 320
    held_out: int = 100
    size: int = 64
    epochs: int = 12
    rates: tuple[float, ...] = (3.2e-2, 9.6e-2)
    seeds: int = 2
    minutes: float = 25.0
    seed: int = 0

    def __post_init__(self):
        for name, low in (("images", 8), ("held_out", 1), ("size", 16), ("epochs", 1), ("seeds", 1)):
            if getattr(self, name) < low:
                raise InvalidInput(f"{name} must be at least {low}, got {getattr(self, name)}")
        check_rates(self.rates)
        check_minutes(self.minutes)
        if self.scenes == "shapes" and (self.stamps, self.photos) != (None, None):
            raise InvalidInput("scenes of shapes take neither stamps nor photos: leave them out")
