"""Attention of the first token, the largest activation and accuracy, seed by seed."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.gated_sink.training import NETWORKS
from qna.labs.gated_sink.verdict import FIRST, LARGEST, TOP1
from qna.labs.row import Metrics
from qna.plots import plot_dots

_PANELS = {
    "attention that the first token gets, %": FIRST,
    "largest activation between blocks": LARGEST,
    "held-out images right, %": TOP1,
}


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a panel for each figure, a dot for each seed, to the PNG at `path` and an SVG beside it."""
    panels = []
    for title, figure in _PANELS.items():
        best = paired.best_of(metrics, NETWORKS, figure)
        panels.append(
            {"title": title, "dots": [{"name": n, "values": list(v.values())} for n, v in best.items()]}
        )
    plot_dots(path, panels, title="Vision transformers with and without gates", note=note, xlabel="")
