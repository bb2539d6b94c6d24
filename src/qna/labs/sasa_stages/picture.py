"""Accuracy of every seed and network."""

from __future__ import annotations

from pathlib import Path

from qna.labs.row import Metrics
from qna.labs.sasa_stages.verdict import best_of
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a row of dots for each network, a dot for each seed.

    Args:
        path: of the PNG; an SVG lies beside it.
        metrics: of one run.
        note: below the title.
    """
    dots = [{"name": name, "values": list(by_seed.values())} for name, by_seed in best_of(metrics).items()]
    plot_dots(
        path,
        [{"title": "held-out images", "dots": dots}],
        title="ResNets that differ in which stages attend",
        note=f"each at its better learning rate; {note}",
        xlabel="right, %",
        digits=2,
    )
