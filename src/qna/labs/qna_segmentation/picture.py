"""Mean IoU of regions and of outlines, of every seed and network."""

from __future__ import annotations

from pathlib import Path

from qna.labs.qna_segmentation.training import NETWORKS
from qna.labs.qna_segmentation.verdict import OUTLINES, REGIONS, at_better_rate
from qna.labs.row import Metrics
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a row of dots for each network, a dot for each seed, for regions and for outlines.

    Args:
        path: of the PNG; an SVG lies beside it.
        metrics: of one run.
        note: below the title.
    """
    panels = [
        {
            "title": title,
            "dots": [
                {"name": name, "values": [run[score] for run in at_better_rate(metrics, name)]}
                for name in NETWORKS
            ],
        }
        for title, score in (("regions", REGIONS), ("outlines", OUTLINES))
    ]
    plot_dots(
        path,
        panels,
        title="Encoder-decoders of equal size on composed scenes",
        note=f"each at its better learning rate; {note}",
        xlabel="mean IoU of held-out images, %",
        digits=2,
    )
