"""Images with the classes of their pixels laid over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qna._core.outside import as_line
from qna.plots._style import figure

# how much of the colour of a class is laid over the image
STRENGTH = 0.6
# with more classes a legend has no room
_NAMED = 30


def plot_overlays(
    path: Path,
    examples: Sequence[tuple[Any, Any, Any]],
    classes: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    *,
    ignore: int,
    title: str = "",
) -> None:
    """Draw examples side by side: the image, its mask over it, the prediction over it.

    Args:
        path: of the PNG.
        examples: RGB image, true and predicted class of every pixel (H, W), arrays or what NumPy reads.
        classes: their names.
        palette: their colours.
        ignore: number of pixels that belong to none.
        title: above the picture.
    """
    import numpy as np

    colours = np.asarray(palette, dtype=float)
    with figure(path, 1.5 + 1.6 * len(examples), 5.6) as canvas:
        canvas.suptitle(as_line(title), x=0.01, ha="left", fontsize=12)
        axes = canvas.subplots(3, len(examples), squeeze=False)
        for column, (image, truth, guess) in enumerate(examples):
            pixels = np.asarray(image, dtype=float)
            for row, labels in enumerate((None, truth, guess)):
                shown = pixels.copy()
                if labels is not None:
                    marked = (labels != ignore) & (labels != 0)
                    shown[marked] += STRENGTH * (colours[labels[marked]] - shown[marked])
                axes[row, column].imshow(shown.round().astype(np.uint8))
                axes[row, column].set(xticks=[], yticks=[])
        for row, name in enumerate(("image", "mask", "network")):
            axes[row, 0].set_ylabel(name)
        if len(classes) <= _NAMED:
            from matplotlib.patches import Patch

            handles = [
                Patch(color=colours[n] / 255, label=as_line(name)) for n, name in enumerate(classes) if n > 0
            ]
            canvas.legend(handles=handles, loc="outside right center")
