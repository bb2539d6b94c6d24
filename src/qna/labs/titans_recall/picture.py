"""Right answers at the length of training and at the longest, a dot for each seed."""

from __future__ import annotations

from pathlib import Path

from qna.labs.row import Metrics
from qna.labs.titans_recall.networks import TASKS
from qna.labs.titans_recall.verdict import at, times_in
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a panel for each task and length, to the PNG at `path` and an SVG beside it."""
    times = times_in(metrics)
    panels = []
    for task in TASKS:
        for n in dict.fromkeys((times[0], times[-1])):
            where = "the length of training" if n == 1 else f"{n} times that length"
            dots = [{"name": name, "values": [*of.values()]} for name, of in at(metrics, task, n).items()]
            panels.append({"title": f"{task} at {where}", "dots": dots})
    plot_dots(
        path,
        panels,
        title="What decoders recall beyond the window of their attention",
        note=note,
        xlabel="right answers, %",
    )
