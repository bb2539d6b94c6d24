"""Weights made from positions by a slow net, multiplied with the map before they meet it again."""

from qna.mixers.hyperzzw import whole_map, window
from qna.mixers.hyperzzw.whole_map import HyperZZWGlobal2d
from qna.mixers.hyperzzw.window import HyperZZWLocal2d

__all__ = ["ROWS", "HyperZZWGlobal2d", "HyperZZWLocal2d"]

ROWS = (whole_map.ROW, window.ROW)
