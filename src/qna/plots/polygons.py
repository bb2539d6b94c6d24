"""Points in the plane with polygons through them, beside lines of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qna._core.outside import as_line
from qna.plots._style import FIRST, INK, QUIET, SECOND, figure

# x, y
Place = tuple[float, float]


@dataclass(frozen=True)
class DrawnPolygon:
    """Points and closed lines through some of them.

    Attributes:
        title: above it.
        points: all of them.
        right: corners of the line that is right, drawn as a filled area.
        found: corners of the line that was found; empty for none.
    """

    title: str
    points: Sequence[Place]
    right: Sequence[Place]
    found: Sequence[Place]


def plot_polygons(
    path: Path,
    rows: Sequence[Sequence[DrawnPolygon]],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    note: str,
    xlabel: str,
    ylabel: str,
) -> None:
    """Draw rows of polygons, and right of them curves, and save PNG and SVG.

    Args:
        path: of the PNG.
        rows: of one length at most.
        curves: name -> x and y; none for no curves.
        title: above the picture.
        note: below the title.
        xlabel: of the curves.
        ylabel: of the curves.
    """
    columns = max((len(row) for row in rows), default=0)
    width, height = 1.7 * columns + 4.6, max(1.75 * len(rows), 3.0) + 0.8
    with figure(path, width, height, formats=("png", "svg")) as canvas:
        canvas.suptitle(f"{as_line(title)}\n{as_line(note)}", x=0.01, ha="left", fontsize=10)
        left, right = canvas.subfigures(1, 2, width_ratios=(max(1.7 * columns, 0.1), 4.6))
        if columns:
            grid = left.subplots(len(rows), columns, squeeze=False)
            for line, row in zip(grid, rows, strict=True):
                for axes in line:
                    axes.axis("off")
                for axes, drawn in zip(line, row, strict=False):
                    _draw(axes, drawn)
        axes = right.subplots()
        for number, (name, (x, y)) in enumerate(curves.items()):
            colour = (FIRST, SECOND, QUIET, INK)[number % 4]
            axes.plot(x, y, color=colour, label=as_line(name), marker="o", markersize=3)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(axis="y", color=QUIET, alpha=0.2)
        if curves:
            axes.legend(fontsize=8)


def _draw(axes, drawn: DrawnPolygon) -> None:
    axes.set_aspect("equal")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.set_title(as_line(drawn.title), fontsize=7, color=INK)
    if drawn.right:
        axes.fill(*zip(*drawn.right, strict=True), color=QUIET, alpha=0.3, linewidth=0)
    if drawn.found:
        x, y = zip(*drawn.found, drawn.found[0], strict=True)
        axes.plot(x, y, color=SECOND, linewidth=1.2)
    if drawn.points:
        axes.scatter(*zip(*drawn.points, strict=True), s=5, color=INK, zorder=3)
