"""Boxes on the images that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qna._core.outside import as_line
from qna.plots._style import FIRST, SECOND, figure

_SIDE, _TITLE = 2.4, 0.5
# images in a row
_ACROSS = 4


class DrawnBox(NamedTuple):
    """A box to draw.

    Attributes:
        corners: left, top, right, bottom, in pixels.
        text: above it.
        truth: what is there, drawn dashed; else what was found.
    """

    corners: tuple[float, float, float, float]
    text: str = ""
    truth: bool = False


def plot_boxes(
    path: Path, images: Sequence[Any], boxes: Sequence[Sequence[DrawnBox]], *, title: str = ""
) -> None:
    """Draw images, of any sizes, with their boxes.

    Args:
        path: of the PNG.
        images: each (H, W, 3) in [0, 1].
        boxes: of each image.
        title: above the picture.
    """
    from matplotlib.patches import Rectangle

    across = min(_ACROSS, len(images))
    down = -(-len(images) // across)
    with figure(path, across * _SIDE + 0.2, down * _SIDE + _TITLE) as canvas:
        canvas.suptitle(as_line(title), x=0.01, ha="left", fontsize=11)
        for axes in canvas.subplots(down, across, squeeze=False).flat:
            axes.set_axis_off()
        for axes, image, own in zip(canvas.axes, images, boxes, strict=False):
            axes.imshow(image)
            for (left, top, right, bottom), text, truth in own:
                colour, style = (FIRST, "--") if truth else (SECOND, "-")
                axes.add_patch(
                    Rectangle(
                        (left - 0.5, top - 0.5),
                        right - left,
                        bottom - top,
                        fill=False,
                        edgecolor=colour,
                        linestyle=style,
                        linewidth=1.5,
                    )
                )
                if text:
                    axes.text(
                        left,
                        max(top, 0),
                        as_line(text),
                        fontsize=7,
                        color="white",
                        va="top",
                        clip_on=True,
                        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1},
                    )
