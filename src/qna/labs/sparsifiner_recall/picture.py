"""What choosers find of dense attention, and what is right with their keys, by the part that is seen."""

from __future__ import annotations

from pathlib import Path

from qna.labs.row import Metrics
from qna.labs.sparsifiner_recall.choosing import CHOOSERS
from qna.labs.sparsifiner_recall.training import DENSE
from qna.labs.sparsifiner_recall.verdict import RECALL, TOP1, at, rates
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw two panels for each keep rate, a dot for each seed, to the PNG at `path` and an SVG beside it."""
    panels = []
    for figure, title in ((RECALL, "of the largest weights, %"), (TOP1, "right, %")):
        for keep in rates(metrics):
            found = at(metrics, keep, figure)
            dots = [{"name": n, "values": [*found[n].values()]} for n in (DENSE, *CHOOSERS) if n in found]
            panels.append({"title": f"{keep:g} of the keys: {title}", "dots": dots})
    plot_dots(path, panels, title="Queries that see some keys, by who chooses them", note=note, xlabel="")
