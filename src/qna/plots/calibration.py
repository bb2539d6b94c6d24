"""Reliability diagrams: accuracy against confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qna._core.outside import as_line
from qna.plots._style import FIRST, QUIET, SECOND, figure

_ACROSS = 4


def plot_calibration(
    path: Path, bins: Mapping[str, Sequence[Mapping[str, Any]]], errors: Mapping[str, float]
) -> None:
    """Draw each network's accuracy per bin of confidence, with the part of the images in it.

    Args:
        path: of the PNG.
        bins: per network: low, high, images, confidence, accuracy of each bin.
        errors: per network: expected calibration error, in [0, 1].
    """
    across = min(_ACROSS, len(bins))
    down = -(-len(bins) // across)
    with figure(path, 3.3 * across + 0.6, 3.5 * down + 0.3) as canvas:
        grid = canvas.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(bins) :]:
            axes.set_visible(False)
        for axes, (name, rows) in zip(grid.flat, bins.items(), strict=False):
            total = max(1, sum(row["images"] for row in rows))
            full = [row for row in rows if row["images"]]
            low, width = [row["low"] for row in full], [row["high"] - row["low"] for row in full]
            axes.bar(
                low,
                [row["images"] / total for row in full],
                width,
                align="edge",
                color=QUIET,
                alpha=0.35,
                label="part of the images",
            )
            axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8)
            axes.plot(
                [row["confidence"] for row in full],
                [row["accuracy"] for row in full],
                "o-",
                color=FIRST if len(full) > 1 else SECOND,
                markersize=4,
                label="accuracy",
            )
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence")
            axes.set_title(f"{_tail(as_line(name))}\nECE {100 * errors[name]:.2f} %", fontsize=9)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower left", fontsize=8, ncols=2)


def _tail(name: str, length: int = 38) -> str:
    """The end of a long name, which tells paths apart."""
    return name if len(name) <= length else "..." + name[3 - length :]
