"""Which tiles of keys the tiles of queries visit, axis by axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qna.plots._style import FIRST, QUIET, SECOND, figure

_STATES = {"not visited": "#f1f1f1", "visited, partly masked": SECOND, "visited, unmasked": FIRST}


def plot_tile_pattern(
    path: Path, axes: Sequence[Sequence[Sequence[int]]], names: Sequence[str], *, title: str = ""
) -> None:
    """Draw one panel per axis; a tile of the map is visited where it is on every axis.

    Args:
        path: of the PNG.
        axes: for each axis, tiles of queries x tiles of keys: 0 not visited, 1 partly masked, 2 unmasked.
        names: one for each axis, above its panel.
        title: above the picture.
    """
    import numpy as np
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    colours = ListedColormap(list(_STATES.values()))
    with figure(path, 0.6 + 3.4 * len(axes), 4.4) as canvas:
        canvas.suptitle(title, x=0.01, ha="left", fontsize=11)
        for panel, tiles, name in zip(
            canvas.subplots(1, len(axes), squeeze=False)[0], axes, names, strict=True
        ):
            shown = np.asarray(tiles)
            panel.imshow(shown, cmap=colours, vmin=0, vmax=2, aspect="auto", interpolation="nearest")
            panel.set_title(name, fontsize=9)
            panel.set(xlabel="tiles of keys", ylabel="tiles of queries")
            panel.locator_params(integer=True)
            # lines between tiles, while there is room for them
            if max(shown.shape) <= 64:
                for count, lines in zip(shown.shape, (panel.axhline, panel.axvline), strict=True):
                    for edge in range(1, count):
                        lines(edge - 0.5, color="white", linewidth=0.8)
        legend = [Patch(facecolor=c, edgecolor=QUIET, linewidth=0.5, label=s) for s, c in _STATES.items()]
        canvas.legend(handles=legend, loc="outside lower left", ncols=3, fontsize=9)
