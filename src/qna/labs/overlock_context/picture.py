"""Receptive fields on images of growing size, and accuracy, of every seed and network."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.overlock_context.networks import NETWORKS
from qna.labs.overlock_context.training import SHARE
from qna.labs.overlock_context.verdict import TOP1, sides
from qna.labs.row import Metrics
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a dot for each seed, to the PNG at `path` and an SVG beside it."""
    panels = {f"side of the field in pixels, {pixels} px": found for pixels, found in sides(metrics).items()}
    panels["right, %"] = paired.best_of(metrics, NETWORKS, TOP1)
    plot_dots(
        path,
        [
            {"title": title, "dots": [{"name": n, "values": list(v.values())} for n, v in by_name.items()]}
            for title, by_name in panels.items()
        ],
        title="Kernels from an overview, without one, and static ones",
        note=f"a field's square holds {SHARE:.0%} of what moves the middle of the last map; {note}",
        xlabel="each panel of its own unit",
        digits=0,
    )
