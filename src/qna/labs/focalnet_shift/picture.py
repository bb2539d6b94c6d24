"""What each network answers, seed by seed, to images in their middle and to moved ones."""

from __future__ import annotations

from pathlib import Path

from qna.labs.focalnet_shift.verdict import MOVED, SAME, TOP1, at_best_rate
from qna.labs.row import Metrics
from qna.plots import plot_dots

_PANELS = {
    "right, images in their middle": TOP1,
    "right, moved images": MOVED,
    "same answer when moved": SAME,
}


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a dot for each seed, to the PNG at `path` and an SVG beside it."""
    plot_dots(
        path,
        [
            {
                "title": title,
                "dots": [
                    {"name": name, "values": list(by_seed.values())}
                    for name, by_seed in at_best_rate(metrics, figure).items()
                ],
            }
            for title, figure in _PANELS.items()
        ],
        title="Networks that differ in what mixes positions",
        note=f"each at its better learning rate; {note}",
        xlabel="of held-out images, %",
        digits=1,
    )
