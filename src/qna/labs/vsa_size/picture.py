"""How many held-out images each network names right, seed by seed, at each image size."""

from __future__ import annotations

from pathlib import Path

from qna.labs.row import Metrics
from qna.labs.vsa_size.verdict import at_size, sizes_of
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a dot for each seed, to the PNG at `path` and an SVG beside it."""
    plot_dots(
        path,
        [
            {
                "title": f"images of {size} x {size} pixels",
                "dots": [
                    {"name": name, "values": list(by_seed.values())}
                    for name, by_seed in at_size(metrics, size).items()
                ],
            }
            for size in sizes_of(metrics)
        ],
        title="Networks that differ in where their windows lie",
        note=f"each at its better learning rate; {note}",
        xlabel="held-out images named right, %",
        digits=1,
    )
