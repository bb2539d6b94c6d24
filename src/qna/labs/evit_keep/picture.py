"""What is right against the part of the tokens that stays."""

from __future__ import annotations

from pathlib import Path

from qna.labs.evit_keep.choosing import CHOOSERS
from qna.labs.evit_keep.training import DENSE
from qna.labs.evit_keep.verdict import at, rates
from qna.labs.row import Metrics
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a panel for each keep rate, a dot for each seed, to the PNG at `path` and an SVG beside it."""
    panels = []
    for keep in rates(metrics):
        right = at(metrics, keep)
        dots = [{"name": n, "values": list(right[n].values())} for n in (DENSE, *CHOOSERS) if n in right]
        panels.append({"title": f"{keep:g} of the tokens stay, three times", "dots": dots})
    plot_dots(
        path,
        panels,
        title="A vision transformer that loses tokens it was trained with",
        note=note,
        xlabel="held-out images right, %",
    )
