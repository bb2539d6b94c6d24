"""What is right, and how heads are used, by the part of the heads that speaks."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.moh_heads.training import PLAIN
from qna.labs.moh_heads.verdict import BUSIEST, COMPUTED, TOP1, names_in
from qna.labs.row import Metrics
from qna.plots import plot_dots

PANELS = {
    "held-out images right, %": TOP1,
    "the busiest routed head, over even use": BUSIEST,
    "heads that some token of an image chose, %": COMPUTED,
}


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a panel for each figure, a dot for each seed, to the PNG at `path` and an SVG beside it."""
    panels = []
    for title, figure in PANELS.items():
        best = paired.best_of(metrics, names_in(metrics), figure)
        dots = [
            {"name": n if n == PLAIN else f"{n} of them", "values": list(v.values())} for n, v in best.items()
        ]
        panels.append({"title": title, "dots": dots})
    plot_dots(path, panels, title="Vision transformers whose tokens choose heads", note=note, xlabel="")
