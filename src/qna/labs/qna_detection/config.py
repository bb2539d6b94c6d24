"""What the laboratory of QnA in detectors is told."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path

from qna._core.errors import InvalidInput, check_choice
from qna.labs.config_checks import check_counts

DETECTORS = ("rt-detr", "detr")


@dataclass(frozen=True)
class QnADetectionConfig:
    """Scenes of known boxes, and detectors of equal size that learn them.

    Attributes:
        detectors: what stands on the backbones, of rt-detr and detr; the latter needs many more epochs.
        images: scenes to train on.
        held_out: scenes to judge on, of other stamps and photographs.
        size: side of a scene, in pixels; a multiple of 32.
        objects: most stamps on a scene.
        drawn: cut shapes out by a rule instead of taking Tux Paint's stamps and scikit-image's photographs.
        stamps: a folder of stamps per class; None for Tux Paint's.
        photos: a folder of photographs; None for scikit-image's.
        epochs: passes over the scenes.
        rate: of learning, per 256 images of an update.
        seeds: training runs of each detector on each backbone, each on scenes of its own.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    detectors: tuple[str, ...] = ("rt-detr",)
    images: int = 800
    held_out: int = 100
    size: int = 64
    objects: int = 3
    drawn: bool = False
    stamps: Path | None = None
    photos: Path | None = None
    epochs: int = 12
    rate: float = 3.2e-2
    seeds: int = 2
    minutes: float = 25.0
    seed: int = 0

    def __post_init__(self):
        for name in self.detectors:
            check_choice("detector", name, DETECTORS)
        if not self.detectors or len(set(self.detectors)) < len(self.detectors):
            raise InvalidInput(f"detectors must be one or more that differ, got {self.detectors}")
        check_counts(self, "epochs", "seeds")
        if self.size < 32 or self.size % 32:
            raise InvalidInput(f"size must be a multiple of 32, got {self.size}")
        if not (0 < self.rate < inf and self.minutes > 0):
            raise InvalidInput(f"rate and minutes must be above 0, got {self.rate:g} and {self.minutes:g}")
        if self.drawn and (self.stamps or self.photos):
            raise InvalidInput("drawn scenes take neither stamps nor photos: leave drawn out, or those")
