"""Training: configuration, recipes, the loop, and checkpoints that always load."""

from qna.train.config import TrainConfig
from qna.train.loop import fit, resume
from qna.train.outcome import Observer, Outcome, RunView
from qna.train.recipes import RECIPES, recipe
from qna.train.stop import RunStopped

__all__ = [
    "TrainConfig",
    "RECIPES",
    "recipe",
    "fit",
    "resume",
    "RunStopped",
    "Observer",
    "Outcome",
    "RunView",
]
