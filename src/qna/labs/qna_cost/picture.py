"""The ratios over the window, beside what the abstract says."""

from __future__ import annotations

from pathlib import Path

from qna.labs.qna_cost.layers import LAYERS, QNA, layer_case, window_of
from qna.labs.qna_cost.verdict import FASTER, LESS_MEMORY, gains
from qna.labs.row import Metrics
from qna.plots import plot_lines


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw how many times more than QnA's layer each other layer takes, in memory and in time.

    Args:
        path: of the PNG; an SVG lies beside it.
        metrics: of one run.
        note: below the title.
    """
    windows = sorted(k for k in map(window_of, metrics) if k is not None)
    panels = []
    for place, (title, claimed) in enumerate((("memory", LESS_MEMORY), ("time", FASTER))):
        lines = []
        for name in LAYERS:
            shown = [k for k in windows if name != QNA and name in metrics[layer_case(k)]]
            points = [(k, found[place]) for k in shown if (found := gains(metrics, QNA, (name,), k))]
            if points:
                lines.append({"name": name, "x": [k for k, _ in points], "y": [y for _, y in points]})
        lines.append({"name": "the abstract's", "x": windows, "y": [claimed] * len(windows), "floor": True})
        panels.append({"title": title, "lines": lines})
    plot_lines(
        path,
        panels,
        title="Layers of equal channels and reach, beside QnA's",
        note=f"the worse of forward and forward+backward; {note}",
        xlabel="window, taps per axis",
        ylabel="times what QnA's layer takes",
    )
