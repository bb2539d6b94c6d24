"""What each detector reaches, a dot for each seed."""

from __future__ import annotations

from pathlib import Path

from qna.labs.qna_detection.config import DETECTORS
from qna.labs.qna_detection.training import CONVOLUTIONS, QNA, UNTRAINED, detector_of
from qna.labs.row import Metrics
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw mean average precision by backbone, a panel for each detector.

    Args:
        path: of the PNG; an SVG lies beside it.
        metrics: of one run.
        note: below the title.
    """
    panels = []
    for detector in DETECTORS:
        of_one = [contenders for case, contenders in metrics.items() if detector_of(case) == detector]
        dots = [
            {"name": name, "values": [c[name]["train map"] for c in of_one if name in c]}
            for name in (QNA, CONVOLUTIONS, UNTRAINED)
        ]
        if of_one:
            panels.append({"title": detector, "dots": [d for d in dots if d["values"]]})
    plot_dots(
        path,
        panels,
        title="Boxes found in composed scenes, by backbone of equal size",
        note=note,
        xlabel="mean average precision (%)",
    )
