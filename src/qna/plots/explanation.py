"""What a network looks at in one photo, in one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qna._core.outside import as_line
from qna.plots._style import INK, QUIET, figure

# from dark to light in equal steps of brightness, so that it reads in grey and to the colour-blind
_COLOURS = "magma"
# decades of a sensitivity that are told apart
_DECADES = 3
# inches: a panel's width, between panels, above a panel (its title), below it (its scale), the title
_SIDE, _GAP, _ABOVE, _BELOW, _TOP = 2.8, 0.3, 0.3, 0.62, 0.45
_NOTE, _MARGIN = 0.2, 0.15
# as many panels stand in one row
_ONE_ROW = 5
# letters of a note to the inch
_LETTERS = 18


@dataclass(frozen=True)
class HeatMap:
    """A map over a photo.

    Attributes:
        title: above it.
        values: (h, w), not negative; enlarged to the photo.
        kind: "share": 1 is what an even spread gives, drawn in octaves; "strength": at most 1, in decades.
        squares: sides in pixels of squares to draw around `centre`, moved to where they lie in the photo.
        centre: (row, column) in pixels; marked where there are squares.
    """

    title: str
    values: Any
    kind: str
    squares: Sequence[float] = ()
    centre: tuple[float, float] = (0, 0)


def plot_explanation(
    path: Path,
    photo: Any,
    maps: Sequence[HeatMap],
    layers: Sequence[HeatMap],
    *,
    answers: Sequence[tuple[str, float]] = (),
    title: str = "",
    notes: Sequence[str] = (),
) -> None:
    """Draw a photo as the network reads it, its answer, and maps over the photo.

    Args:
        path: of the PNG.
        photo: (H, W, C) in [0, 1], C 1 or 3.
        maps: in the first row, beside the photo and the answer.
        layers: in the second row.
        answers: names and probabilities, the most probable first; none leaves their panel out.
        title: above the picture.
        notes: lines below it.
    """
    import numpy as np

    photo = np.asarray(photo, dtype=float)
    answers = [(as_line(name), probability) for name, probability in answers]
    title, notes = as_line(title), [as_line(note) for note in notes]
    if 1 + bool(answers) + len(maps) + len(layers) <= _ONE_ROW:
        maps, layers = [*maps, *layers], ()
    across = max(1 + bool(answers) + len(maps), len(layers), 3)
    lines = [line for note in notes for line in textwrap.wrap(note, int(across * _SIDE * _LETTERS))]
    height = _SIDE * photo.shape[0] / photo.shape[1]
    grid = _Grid(across=across, down=1 + bool(layers), height=height, notes=len(lines))
    with figure(path, *grid.size) as canvas:
        canvas.set_layout_engine("none")  # rows of pictures with and without scales are to be in line
        grid.write(canvas, title, lines)
        axes = grid.panel(canvas, 0, 0, f"as it is read, {photo.shape[1]} x {photo.shape[0]} pixels")
        near = "nearest" if max(photo.shape) < 100 else "antialiased"
        axes.imshow(
            photo.squeeze(-1) if photo.shape[-1] == 1 else photo,
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation=near,
        )
        if answers:
            _draw_answers(grid.panel(canvas, 0, 1, "the answer"), answers)
        for row, first, heats in ((0, 1 + bool(answers), maps), (1, 0, layers)):
            for place, heat in enumerate(heats):
                axes = grid.panel(canvas, row, first + place, heat.title)
                image, ticks = _draw_map(axes, photo, heat)
                _draw_scale(canvas, grid.scale(canvas, row, first + place), image, ticks)


@dataclass(frozen=True)
class _Grid:
    """Where everything is, in inches from the upper left corner."""

    across: int
    down: int
    height: float
    notes: int

    @property
    def size(self) -> tuple[float, float]:
        width = 2 * _MARGIN + self.across * _SIDE + (self.across - 1) * _GAP
        rows = self.down * (_ABOVE + self.height + _BELOW)
        return width, _TOP + rows + _NOTE * self.notes + _MARGIN

    def panel(self, canvas: Any, row: int, column: int, title: str) -> Any:
        """Axes of a picture, without frame and ticks."""
        axes = self._axes(canvas, row, column, _ABOVE, self.height)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_title(title, fontsize=10)
        return axes

    def scale(self, canvas: Any, row: int, column: int) -> Any:
        """Axes of the scale below a picture."""
        return self._axes(canvas, row, column, _ABOVE + self.height + 0.08, 0.09)

    def write(self, canvas: Any, title: str, notes: Sequence[str]) -> None:
        """The title, and the notes at the foot."""
        width, height = self.size
        common = {"ha": "left", "va": "baseline", "color": INK}
        canvas.text(_MARGIN / width, 1 - 0.3 / height, title, fontsize=13, fontweight="bold", **common)
        for line, note in enumerate(reversed(notes)):
            canvas.text(_MARGIN / width, (_MARGIN + line * _NOTE) / height, note, fontsize=8.5, **common)

    def _axes(self, canvas: Any, row: int, column: int, down: float, tall: float) -> Any:
        width, height = self.size
        top = _TOP + row * (_ABOVE + self.height + _BELOW) + down
        left = _MARGIN + column * (_SIDE + _GAP)
        return canvas.add_axes((left / width, 1 - (top + tall) / height, _SIDE / width, tall / height))


def _draw_answers(axes: Any, answers: Sequence[tuple[str, float]]) -> None:
    places = range(len(answers))
    axes.barh(places, [100 * p for _, p in answers], height=0.3, color="#7b2382")
    for place, (name, probability) in zip(places, answers, strict=True):
        text = name if len(name) <= 30 else f"{name[:28]}..."
        axes.text(0, place - 0.22, f"{text}   {100 * probability:.1f} %", va="bottom", ha="left", fontsize=9)
    axes.set(xlim=(0, 100), ylim=(len(answers) - 0.5, -0.65), xticks=[], yticks=[])


def _draw_map(axes: Any, photo: Any, heat: HeatMap) -> tuple[Any, dict[float, str]]:
    """Draw one map; return what a scale is made from, and its ticks."""
    import numpy as np

    grey = photo.mean(-1)
    height, width = grey.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    values = np.asarray(heat.values, dtype=float)
    drawn, low, high, ticks = (_octaves if heat.kind == "share" else _decades)(values)
    outlines = photo.shape[-1] == 1
    axes.imshow(0.2 + 0.8 * grey, cmap="gray", vmin=0, vmax=1, extent=extent)
    image = axes.imshow(
        drawn,
        cmap=_COLOURS,
        vmin=low,
        vmax=high,
        extent=extent,
        interpolation="nearest" if values.shape == grey.shape else "bilinear",
        alpha=1.0 if outlines else 0.7,
    )
    if (
        outlines and grey.min() < 0.5 < grey.max()
    ):  # a drawing shows best as lines on the map, a photograph through it
        axes.contour(grey, levels=[0.5], colors="white", linewidths=0.9)
    for side in heat.squares:
        _draw_square(axes, heat.centre, side, (height, width))
    if heat.squares:
        at = heat.centre[1] - 0.5, heat.centre[0] - 0.5
        axes.plot(*at, "+", color="white", markersize=7, markeredgewidth=0.9)
    axes.set(xlim=extent[:2], ylim=extent[2:])
    return image, ticks


def _draw_scale(canvas: Any, axes: Any, image: Any, ticks: dict[float, str]) -> None:
    bar = canvas.colorbar(image, cax=axes, orientation="horizontal")
    bar.solids.set_alpha(1)
    places = sorted(ticks)
    bar.set_ticks(places, labels=[ticks[place] for place in places])
    bar.ax.tick_params(labelsize=8, length=2, color=QUIET)
    bar.outline.set_visible(False)
    labels = bar.ax.get_xticklabels()
    for label, side in ((labels[0], "left"), (labels[-1], "right")):  # neighbouring scales would touch
        label.set_horizontalalignment(side)


def _octaves(values: Any) -> tuple[Any, float, float, dict[float, str]]:
    """Logarithms, the range to draw, and ticks at its ends and at the even share."""
    import numpy as np

    drawn = np.log2(np.maximum(values, 1e-6))
    low, high = (float(np.quantile(drawn, q)) for q in (0.01, 0.99))
    short = 0.1 - (high - low)  # a map that is all but even is not to look like one that is not
    if short > 0:
        low, high = low - short / 2, high + short / 2
    ticks = {v: f"x{2**v:.2f}" for v in (low, high)}
    if low + 0.2 * (high - low) < 0 < high - 0.2 * (high - low):
        ticks[0.0] = "x1"
    return drawn, low, high, ticks


def _decades(values: Any) -> tuple[Any, float, float, dict[float, str]]:
    import numpy as np

    drawn = np.log10(np.maximum(values, 10.0 ** -(_DECADES + 3)))
    ticks = {-float(d): f"1/{10**d:,}" if d else "1" for d in range(_DECADES + 1)}
    return drawn, -float(_DECADES), 0.0, ticks


def _draw_square(axes: Any, centre: tuple[float, float], side: float, size: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    # along an axis that is shorter than the side, all of it
    tall, wide = (min(side, n) for n in size)
    top, left = (min(max(c - s / 2, 0), n - s) for c, s, n in zip(centre, (tall, wide), size, strict=True))
    look = {"edgecolor": "white", "linewidth": 1.0, "linestyle": (0, (4, 2))}
    # pixel 0 is drawn from -0.5 to 0.5
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), wide, tall, fill=False, **look))
