"""What the laboratory of guided clouds is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_rates


@dataclass(frozen=True)
class SketchCloudsConfig:
    """Clouds of points that are drawn from noise, guided by a sketch and by words.

    Attributes:
        things: to learn from.
        points: of a cloud.
        dim: channels of the networks.
        depth: blocks of the networks.
        capsules: of a sketch.
        shape_steps: of training, of each network that draws points.
        colour_steps: of training, of the network that draws colours.
        batch: clouds of a step.
        rate: of AdamW, after a warm-up of a fiftieth of the steps, to 0 along a cosine.
        few: steps in which a cloud is drawn.
        judged: unseen things to draw.
        seeds: training runs.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    things: int = 1500
    points: int = 96
    dim: int = 64
    depth: int = 3
    capsules: int = 8
    shape_steps: int = 2000
    colour_steps: int = 1000
    batch: int = 32
    rate: float = 2e-3
    few: int = 40
    judged: int = 80
    seeds: int = 1
    minutes: float = 30.0
    seed: int = 0

    def __post_init__(self):
        check_counts(
            self,
            "things",
            "points",
            "depth",
            "capsules",
            "shape_steps",
            "colour_steps",
            "batch",
            "few",
            "seeds",
        )
        check_rates((self.rate,))
        check_minutes(self.minutes)
        if self.dim < 8 or self.dim % 8:
            raise InvalidInput(f"dim must be a multiple of 8, got {self.dim}")
        if self.judged < 8 or self.judged % 4:
            raise InvalidInput(
                f"judged must be 8 or more and a multiple of 4, as many of each kind, got {self.judged}"
            )
