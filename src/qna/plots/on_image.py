"""What was found, drawn on the image itself, pixel for pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qna._core.outside import as_line
from qna.plots._style import FIRST, SECOND
from qna.plots.boxes import DrawnBox
from qna.plots.overlays import STRENGTH


def with_boxes(image: Any, boxes: Sequence[DrawnBox]) -> Any:
    """A copy of an RGB PIL image with boxes and their texts; lines grow with the image."""
    from PIL import ImageDraw, ImageFont

    drawn = image.copy()
    pen, side = ImageDraw.Draw(drawn), max(image.size)
    width, font = max(1, round(side / 300)), ImageFont.load_default(max(9, round(side / 45)))
    for (left, top, right, bottom), text, truth in reversed(boxes):  # the surest ends on top
        colour = FIRST if truth else SECOND
        corners = [min(left, right), min(top, bottom), max(left, right), max(top, bottom)]
        pen.rectangle(corners, outline=colour, width=width)
        if text:
            place = left + width, top + width
            pen.rectangle(pen.textbbox(place, as_line(text), font=font), fill=colour)
            pen.text(place, as_line(text), fill="white", font=font)
    return drawn


def with_mask(image: Any, classes: Any, palette: Sequence[tuple[int, int, int]]) -> Any:
    """A copy of an RGB PIL image under the colours of its pixels' classes; class 0 has none.

    Args:
        image: of any size.
        classes: uint8 (height, width), an array.
        palette: a colour for each class.
    """
    import numpy as np
    from PIL import Image

    pixels, colours = np.asarray(image, dtype=float).copy(), np.asarray(palette, dtype=float)
    marked = classes != 0
    pixels[marked] += STRENGTH * (colours[classes[marked]] - pixels[marked])
    return Image.fromarray(pixels.round().astype(np.uint8))
