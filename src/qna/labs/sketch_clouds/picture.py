"""How far drawn clouds are from the things."""

from __future__ import annotations

from pathlib import Path

from qna.labs.row import Metrics
from qna.labs.sketch_clouds.training import (
    AGAIN,
    COLOUR,
    GUIDES,
    OTHER_WORDS,
    OWN_WORDS,
    PALETTE,
    SHAPE,
    WRONG,
)
from qna.labs.sketch_clouds.verdict import CHAMFER, MOVER, OFF
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Dots of both distances and of colours."""
    panels = []
    for title, what, figure, names in (
        ("Chamfer distance", SHAPE, CHAMFER, (*GUIDES, WRONG, AGAIN)),
        ("earth mover's distance", SHAPE, MOVER, (*GUIDES, WRONG, AGAIN)),
        ("colours off by", COLOUR, OFF, (OWN_WORDS, OTHER_WORDS, PALETTE)),
    ):
        cases = [contenders for case, contenders in metrics.items() if case.startswith(f"{what}-seed")]
        dots = [{"name": n, "values": [case[n][figure] for case in cases if n in case]} for n in names]
        panels.append({"title": title, "dots": [each for each in dots if each["values"]]})
    plot_dots(
        path, panels, title="Clouds drawn for unseen things", note=note, xlabel="less is nearer", digits=3
    )
