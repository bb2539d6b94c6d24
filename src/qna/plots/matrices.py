"""Small matrices side by side, on one scale around zero."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qna._core.outside import as_line
from qna.plots._style import INK, QUIET, figure


def plot_matrices(
    path: Path,
    rows: Sequence[tuple[str, Sequence[tuple[str, Sequence[Sequence[float]]]]]],
    *,
    title: str,
    note: str,
) -> None:
    """Draw rows of matrices, each row on a scale of its own for matrices of one name, and save PNG and SVG.

    Args:
        path: of the PNG.
        rows: each a name and its matrices with theirs; names that differ in their last word alone share a
            scale within the row.
        title: above the picture.
        note: below the title.
    """
    import numpy as np

    columns = max((len(matrices) for _, matrices in rows), default=1)
    with figure(path, 1.6 * columns + 1.2, 1.75 * len(rows) + 1.0, formats=("png", "svg")) as canvas:
        canvas.suptitle(f"{as_line(title)}\n{as_line(note)}", x=0.01, ha="left", fontsize=10)
        grid = canvas.subplots(max(1, len(rows)), columns, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for line, (name, matrices) in zip(grid, rows, strict=False):
            reach: dict[str, float] = {}
            for label, table in matrices:
                kind = label.rsplit(" ", 1)[0]
                reach[kind] = max(reach.get(kind, 1e-12), float(np.abs(table).max()))
            for axes, (label, table) in zip(line, matrices, strict=False):
                most = reach[label.rsplit(" ", 1)[0]]
                axes.axis("on")
                axes.imshow(np.asarray(table), cmap="RdBu_r", vmin=-most, vmax=most)
                axes.set_title(as_line(f"{label}, ±{most:.2g}"), fontsize=8, color=INK)
                axes.set(xticks=[], yticks=[])
                for spine in axes.spines.values():
                    spine.set(visible=True, color=QUIET)
            if matrices:
                line[0].set_ylabel(as_line(name).replace(", ", "\n"), fontsize=8, color=INK)
