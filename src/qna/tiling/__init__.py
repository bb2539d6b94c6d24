"""Networks on images of any size: in tiles, with the halo that follows from their layers."""

from qna.tiling.plan import TilePlan
from qna.tiling.tiled import Tiled, tiled

__all__ = ["TilePlan", "Tiled", "tiled"]
