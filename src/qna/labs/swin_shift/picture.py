"""Accuracy of every seed and contender."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.row import Metrics
from qna.labs.swin_shift.verdict import ABLATION


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a dot for each seed, to the PNG at `path` and an SVG beside it."""
    paired.draw(
        path,
        ABLATION.best_of(metrics),
        note,
        title="Windows that are shifted, unshifted, and as large as the map",
        xlabel="right, %",
        digits=1,
    )
