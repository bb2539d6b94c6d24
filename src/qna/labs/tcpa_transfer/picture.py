"""How many digits are right, seed by seed, after each way of adapting."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.row import Metrics
from qna.labs.tcpa_transfer.verdict import NAMES, TOP1


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a dot for each seed, to the PNG at `path` and an SVG beside it."""
    best = paired.best_of(metrics, NAMES, TOP1)
    paired.draw(
        path,
        best,
        note,
        title="A small vision transformer of Fashion-MNIST, adapted to digits",
        xlabel="held-out digits right, %",
    )
