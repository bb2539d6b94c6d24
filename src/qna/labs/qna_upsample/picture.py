"""PSNR of every seed and decoder."""

from __future__ import annotations

from pathlib import Path

from qna.labs.qna_upsample.verdict import best_of
from qna.labs.row import Metrics
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a row of dots for each decoder, a dot for each seed.

    Args:
        path: of the PNG; an SVG lies beside it.
        metrics: of one run.
        note: below the title.
    """
    dots = [{"name": name, "values": list(by_seed.values())} for name, by_seed in best_of(metrics).items()]
    plot_dots(
        path,
        [{"title": "held-out images", "dots": dots}],
        title="Auto-encoders that differ in how they up-sample",
        note=f"at the better rate; {note}",
        xlabel="PSNR, dB",
        digits=2,
    )
