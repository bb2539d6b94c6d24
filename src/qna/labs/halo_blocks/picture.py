"""Accuracy of every seed and contender."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.halo_blocks.verdict import best_of
from qna.labs.row import Metrics


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a dot for each seed, to the PNG at `path` and an SVG beside it."""
    paired.draw(
        path,
        best_of(metrics),
        note,
        title="Blocks with a halo, windows around each query, blocks without a halo",
        xlabel="right, %",
        digits=1,
    )
