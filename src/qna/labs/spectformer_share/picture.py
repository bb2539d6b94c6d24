"""Accuracy of every seed and contender."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.row import Metrics
from qna.labs.spectformer_share.networks import CONTENDERS
from qna.labs.spectformer_share.verdict import TOP1


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a dot for each seed, to the PNG at `path` and an SVG beside it."""
    paired.draw(
        path,
        paired.best_of(metrics, CONTENDERS, TOP1),
        note,
        title="Blocks of a small SpectFormer",
        xlabel="right, %",
        digits=1,
    )
