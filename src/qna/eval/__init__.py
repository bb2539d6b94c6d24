"""How good a network is on images that it has not seen."""

from qna.eval.scores import Scores, Tally, evaluate

__all__ = ["Scores", "Tally", "evaluate"]
