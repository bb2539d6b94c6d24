"""What is right on whole and damaged images, and how alike queries attend, seed by seed."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.row import Metrics
from qna.labs.tap_corruption.training import NETWORKS
from qna.labs.tap_corruption.verdict import COSINE, DAMAGED, TOP1
from qna.plots import plot_dots

_PANELS = {
    "whole images right, %": TOP1,
    "damaged images right, %": DAMAGED,
    "100 x cosine of two queries' attention": COSINE,
}


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a panel for each figure, a dot for each seed, to the PNG at `path` and an SVG beside it."""
    panels = []
    for title, figure in _PANELS.items():
        times = 100 if figure == COSINE else 1
        dots = [
            {"name": name, "values": [times * value for value in by_seed.values()]}
            for name, by_seed in paired.best_of(metrics, NETWORKS, figure).items()
        ]
        panels.append({"title": title, "dots": dots})
    plot_dots(path, panels, title="Vision transformers on damaged images", note=note, xlabel="")
