"""Losses on both tasks and what attention looks like on text, decoder by decoder and seed by seed."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.deconstructed_order.training import INDICATORS, INDUCTION, NAMES, TEXT
from qna.labs.deconstructed_order.verdict import LOSS
from qna.labs.row import Metrics
from qna.plots import plot_dots

PANELS = {
    f"{TEXT}: bits per byte": (TEXT, LOSS),
    f"{INDUCTION}: bits per answer": (INDUCTION, LOSS),
    **{
        f"{TEXT}: {name}, {unit}".removesuffix(", 1"): (TEXT, f"none {name}")
        for name, unit in INDICATORS.items()
    },
}


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a panel for each figure, to the PNG at `path` and an SVG beside it."""
    panels = []
    for title, (task, figure) in PANELS.items():
        of_task = {
            case: contenders for case, contenders in metrics.items() if case.startswith(f"{task}-seed")
        }
        best = paired.best_of(of_task, NAMES, figure)
        # every decoder has its row, also where it has no attention
        dots = [{"name": name, "values": list(by_seed.values())} for name, by_seed in best.items()]
        panels.append({"title": title, "dots": dots})
    plot_dots(
        path,
        panels,
        title="Small decoders whose attention is taken apart: in every layer, in odd ones, without odd ones",
        note=f"one dot a seed; attention as the mean over layers; {note}",
        xlabel="",
        digits=2,
    )
