"""Time and memory of both layers over the map."""

from __future__ import annotations

from pathlib import Path

from qna.labs.l2vit_concentration.layers import FULL, LINEAR, layer_case, side_of
from qna.labs.row import Metrics
from qna.plots import plot_lines


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw time and memory of both layers over the number of positions, to the PNG and an SVG beside it."""
    sides = sorted(side for case in metrics if (side := side_of(case)) is not None)
    panels = []
    for what, unit in (("time", "ms"), ("memory", "MiB")):
        lines = []
        for name in (LINEAR, FULL):
            shown = [s for s in sides if f"forward {what}" in metrics[layer_case(s)].get(name, {})]
            if shown:
                lines.append(
                    {
                        "name": name,
                        "x": [s * s for s in shown],
                        "y": [metrics[layer_case(s)][name][f"forward {what}"] for s in shown],
                    }
                )
        panels.append({"title": f"{what}, {unit}", "lines": lines})
    plot_lines(
        path,
        panels,
        title="Attention of the whole map, linear and by softmax",
        note=note,
        xlabel="positions of the map",
        ylabel="of a call in inference",
        log_x=True,
    )
