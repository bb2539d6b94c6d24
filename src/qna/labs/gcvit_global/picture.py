"""Accuracy of every seed and contender."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.gcvit_global.verdict import ABLATION
from qna.labs.row import Metrics


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a dot for each seed, to the PNG at `path` and an SVG beside it."""
    paired.draw(
        path,
        ABLATION.best_of(metrics),
        note,
        title="Where the queries of every second block come from",
        xlabel="right, %",
        digits=1,
    )
