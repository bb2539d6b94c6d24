"""Attention maps beside the images that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qna._core.outside import as_line
from qna.plots._style import INK, SECOND, figure


def plot_attention(
    path: Path,
    images: Any,
    maps: Sequence[tuple[str, Any]],
    captions: Sequence[tuple[str, bool]],
    *,
    title: str = "",
) -> None:
    """Draw each image and, below it, the attention that its parts receive.

    Args:
        path: of the PNG.
        images: (N, H, W, C) in [0, 1], C 1 or 3.
        maps: per row a name and (N, h, w), 1 where attention is as if spread evenly.
        captions: per image a text and whether the network was right.
        title: above the picture.
    """
    import numpy as np

    images = np.asarray(images)
    count = len(images)
    grey = images.mean(-1)
    with figure(path, 1.25 * count + 1.6, 1.35 * (len(maps) + 1) + 0.7) as canvas:
        canvas.suptitle(as_line(title), x=0.01, ha="left", fontsize=12)
        grid = canvas.subplots(len(maps) + 1, count, squeeze=False)
        for axes, image, (caption, right) in zip(grid[0], images, captions, strict=True):
            axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
            axes.set_title(as_line(caption), loc="center", fontsize=9, color=INK if right else SECOND)
        grid[0, 0].set_ylabel("image", fontsize=9)
        for row, (name, received) in zip(grid[1:], maps, strict=True):
            heat = _draw_row(row, grey, np.asarray(received, dtype=float), outlines=images.shape[-1] == 1)
            row[0].set_ylabel(name, fontsize=9)
            bar = canvas.colorbar(heat, ax=list(row), shrink=0.85, aspect=12, pad=0.01)
            reach = heat.norm.vmax
            bar.set_ticks([-reach, 0, reach], labels=[f"x{2**v:.2g}" for v in (-reach, 0, reach)])
            bar.outline.set_visible(False)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)


def _draw_row(row: Any, grey: Any, received: Any, *, outlines: bool) -> Any:
    """Draw one layer group's maps over their images; return the scale that they share."""
    import numpy as np
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height, width = grey.shape[1:]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    # octaves: half and twice the even share are equally far from it
    octaves = np.log2(np.maximum(received, 1e-6))
    reach = max(0.25, float(np.quantile(np.abs(octaves), 0.99)))
    scale = ScalarMappable(Normalize(-reach, reach), "RdBu_r")
    for axes, image, values in zip(row, grey, octaves, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent)
        axes.imshow(
            values,
            cmap=scale.cmap,
            norm=scale.norm,
            extent=extent,
            interpolation="bilinear",
            alpha=1.0 if outlines else 0.65,
        )
        if outlines and image.min() < 0.5 < image.max():  # a drawing shows best as lines on the map
            axes.contour(image, levels=[0.5], colors="black", linewidths=0.8)
    return scale
