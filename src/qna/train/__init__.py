"""Training: configuration, recipes, the loop, and checkpoints that always load."""

from qna.train.config import TrainConfig
from qna.train.loop import Observer, Outcome, fit
from qna.train.recipes import RECIPES, recipe

__all__ = ["TrainConfig", "RECIPES", "recipe", "fit", "Observer", "Outcome"]
