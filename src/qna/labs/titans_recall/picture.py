"""Right answers over the length, one panel for each task."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from qna.labs.row import Metrics
from qna.labs.titans_recall.networks import NETWORKS, TASKS
from qna.labs.titans_recall.verdict import at, times_in
from qna.plots import plot_lines


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw means over the seeds, with a band from the lowest to the highest, as PNG and SVG."""
    times, panels = times_in(metrics), []
    for task in TASKS:
        by_length = {n: at(metrics, task, n) for n in times}
        lines = []
        for name in NETWORKS:
            if all(name in by_length[n] for n in times):
                every = [list(by_length[n][name].values()) for n in times]
                bounds = {"low": [min(v) for v in every], "high": [max(v) for v in every]}
                lines.append({"name": name, "x": times, "y": [mean(v) for v in every], **bounds})
        panels.append({"title": task, "lines": lines})
    plot_lines(
        path,
        panels,
        title="What decoders recall beyond the window of their attention",
        note=f"bands from the lowest to the highest seed; {note}",
        xlabel="length, in lengths of training",
        ylabel="right answers, %",
        log_x=True,
    )
