"""The confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qna._core.outside import as_line
from qna.plots._style import QUIET, figure, ink_on

# beyond this many classes the cells are too small to write in
_WRITTEN = 30


def plot_confusion(
    path: Path, confusion: Sequence[Sequence[int]], classes: Sequence[str], *, title: str = ""
) -> None:
    """Draw how many images of each true class (rows) were taken for each class (columns).

    Colour is the part of the row, so that rare classes show; errors are coloured apart from what is right.

    Args:
        path: of the PNG.
        confusion: images per (true, predicted) class.
        classes: their names.
        title: above the picture.
    """
    import numpy as np

    classes = [as_line(name) for name in classes]
    counts = np.asarray(confusion, dtype=float)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    diagonal = np.eye(len(counts), dtype=bool)
    right = np.where(diagonal, share, np.nan)
    wrong = np.where(diagonal | (counts == 0), np.nan, share)
    written = len(classes) <= _WRITTEN
    side = 2.2 + 0.42 * len(classes) if written else 9.0
    with figure(path, side + 0.6, side) as canvas:
        axes = canvas.subplots()
        axes.set_title(as_line(title))
        blue = axes.imshow(right, cmap="Blues", vmin=0, vmax=1.6)
        # errors are rare: a row's error of 20 % is already full red
        red = axes.imshow(wrong, cmap="Reds", vmin=0, vmax=0.2)
        axes.set(xlabel="predicted", ylabel="true")
        for side_name in ("top", "right"):
            axes.spines[side_name].set_visible(True)
        if not written:
            return
        long_names = max(map(len, classes)) > 3
        axes.set_xticks(range(len(classes)), classes, rotation=90 if long_names else 0)
        axes.set_yticks(range(len(classes)), classes)
        axes.set_xticks(np.arange(len(classes) - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(len(classes) - 1) + 0.5, minor=True)
        axes.grid(which="minor", color=QUIET, alpha=0.2)
        axes.tick_params(which="both", length=0)
        for row, column in np.argwhere(counts > 0):
            ink = ink_on((blue if row == column else red).to_rgba(share[row, column])[:3])
            text = f"{counts[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)
