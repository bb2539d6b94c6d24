"""Benchmark pictures: lines with their names at the end, bars, dots, and a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qna._core.outside import as_line
from qna.plots._style import INK, QUIET, figure

FORMATS = ("png", "svg")

# Okabe and Ito's colours, which differ for colour-blind readers too, then darker mixes of them
_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
    "#7a4fa3", "#8c510a", "#01665e", "#b2182b", "#4d4d4d", "#999900",
)  # fmt: skip
_MARKERS = "osD^vPX<>*hp"
_STRONG = 2.6  # line width of the first name


def plot_lines(
    path: Path,
    panels: Sequence[Mapping[str, Any]],
    *,
    title: str,
    note: str,
    xlabel: str,
    ylabel: str,
    log_x: bool = False,
) -> None:
    """Draw lines over a logarithmic axis, one panel beside the other, and save PNG and SVG.

    Args:
        path: of the PNG.
        panels: each with "title" and "lines"; a line has "name", "x", "y" and may have "low" and "high" (a
            band around it) and "floor" (True draws it as a bound). A name has one colour in all panels; the
            first name is drawn strongest.
        title: above the picture.
        note: below the title, in small type: where and when this was measured.
        xlabel: of every panel.
        ylabel: of the first panel.
        log_x: whether x is logarithmic too.
    """
    names = list(dict.fromkeys(line["name"] for panel in panels for line in panel["lines"]))
    with figure(path, 5.6 * len(panels) + 0.6, 5.2, formats=FORMATS) as canvas:
        _head(canvas, title, note)
        every = canvas.subplots(1, len(panels), squeeze=False)[0]
        for panel, axes in zip(panels, every, strict=True):
            axes.set_yscale("log")
            if log_x:
                axes.set_xscale("log")
            for line in panel["lines"]:
                _draw(axes, line, names.index(line["name"]))
            ticks = _clear(sorted({x for line in panel["lines"] for x in line["x"]}), 1.7 if log_x else 1.0)
            axes.set_xticks(ticks, [_plain(x) for x in ticks])
            _ticks_of_a_short_axis(axes)
            axes.minorticks_off()
            axes.yaxis.set_major_formatter(lambda y, _: _plain(y))
            axes.set_title(as_line(panel["title"]))
            axes.set_xlabel(xlabel)
            axes.grid(axis="y", color=QUIET, alpha=0.2)
            _name_at_the_end(axes, panel["lines"], names, log_x=log_x)
        every[0].set_ylabel(ylabel)


def plot_bars(path: Path, panels: Sequence[Mapping[str, Any]], *, title: str, note: str, xlabel: str) -> None:
    """Draw horizontal bars, one panel beside the other, and save PNG and SVG.

    Args:
        path: of the PNG.
        panels: each with "title" and "bars"; a bar has "name", "value", "low" and "high".
        title: above the picture.
        note: below the title.
        xlabel: of every panel.
    """
    names = list(dict.fromkeys(bar["name"] for panel in panels for bar in panel["bars"]))
    with figure(path, 4.6 * len(panels) + 1.4, 1.8 + 0.42 * len(names), formats=FORMATS) as canvas:
        _head(canvas, title, note)
        every = canvas.subplots(1, len(panels), squeeze=False)[0]
        for panel, axes in zip(panels, every, strict=True):
            for bar in panel["bars"]:
                place = names.index(bar["name"])
                axes.barh(place, bar["value"], color=_COLOURS[place % len(_COLOURS)], height=0.66)
                axes.plot([bar["low"], bar["high"]], [place, place], color=INK, linewidth=1.2)
                axes.annotate(
                    _plain(bar["value"]), (max(bar["value"], bar["high"]), place),
                    xytext=(5, 0), textcoords="offset points", va="center",
                )  # fmt: skip
            axes.set_yticks(
                range(len(names)), list(map(as_line, names)) if axes is every[0] else [""] * len(names)
            )
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.margins(x=0.15)
            axes.set_title(as_line(panel["title"]))
            axes.set_xlabel(xlabel)
            axes.tick_params(axis="y", length=0)


def plot_dots(
    path: Path,
    panels: Sequence[Mapping[str, Any]],
    *,
    title: str,
    note: str,
    xlabel: str,
    digits: int = 1,
) -> None:
    """Draw dots in rows, one panel beside the other, and save PNG and SVG.

    Args:
        path: of the PNG.
        panels: each with "title" and "dots"; these have "name" and "values", of which the mean is written. A
            line at the mean of the first makes the others comparable with it.
        title: above the picture.
        note: below the title.
        xlabel: of every panel.
        digits: of the means, after the point.
    """
    names = list(dict.fromkeys(dots["name"] for panel in panels for dots in panel["dots"]))
    with figure(path, 4.6 * len(panels) + 1.4, 1.8 + 0.36 * len(names), formats=FORMATS) as canvas:
        _head(canvas, title, note)
        every = canvas.subplots(1, len(panels), squeeze=False)[0]
        for panel, axes in zip(panels, every, strict=True):
            for dots in panel["dots"]:
                place, middle = names.index(dots["name"]), _mean(dots["values"])
                if place == 0:
                    axes.axvline(middle, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
                heights = [place] * len(dots["values"])
                axes.plot(dots["values"], heights, "o", color=_COLOURS[place % len(_COLOURS)], markersize=7)
                axes.annotate(
                    f"{middle:.{digits}f}", (max(dots["values"]), place),
                    xytext=(8, 0), textcoords="offset points", va="center",
                )  # fmt: skip
            axes.set_yticks(
                range(len(names)), list(map(as_line, names)) if axes is every[0] else [""] * len(names)
            )
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.margins(x=0.18)
            axes.set_title(as_line(panel["title"]))
            axes.set_xlabel(xlabel)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color=QUIET, alpha=0.2)


def plot_points(
    path: Path, panels: Sequence[Mapping[str, Any]], *, title: str, note: str, xlabel: str, ylabel: str
) -> None:
    """Draw named points, what they cost against what they reach, one panel beside the other, as PNG and SVG.

    Args:
        path: of the PNG.
        panels: each with "title" and "points"; these have "name", "x" and "y". A line joins those than which
            none is as cheap and better.
        title: above the picture.
        note: below the title.
        xlabel: of every panel, whose axis is logarithmic.
        ylabel: of the first panel.
    """
    with figure(path, 7.0 * len(panels) + 0.6, 6.4, formats=FORMATS) as canvas:
        _head(canvas, title, note)
        every = canvas.subplots(1, len(panels), squeeze=False)[0]
        for panel, axes in zip(panels, every, strict=True):
            points = panel["points"]
            best = _front(points)
            axes.plot([p["x"] for p in best], [p["y"] for p in best], color=QUIET, linewidth=0.8)
            for i, point in enumerate(points):
                axes.plot(point["x"], point["y"], "o", color=_COLOURS[i % len(_COLOURS)], markersize=6)
                axes.annotate(
                    as_line(point["name"]), (point["x"], point["y"]),
                    xytext=(6, 4), textcoords="offset points", fontsize=8,
                )  # fmt: skip
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda x, _: _plain(x))
            axes.xaxis.set_minor_formatter(lambda x, _: "")
            axes.margins(x=0.16, y=0.08)
            axes.set_title(as_line(panel["title"]))
            axes.set_xlabel(xlabel)
            axes.grid(color=QUIET, alpha=0.2)
        every[0].set_ylabel(ylabel)


def _front(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those than which none is as cheap and better, or as good and cheaper, from the cheapest."""
    front: list[Mapping[str, Any]] = []
    for point in sorted(points, key=lambda p: (p["x"], -p["y"])):
        if not front or point["y"] > front[-1]["y"]:
            front.append(point)
    return front


def plot_table(
    path: Path, headings: Sequence[str], lines: Sequence[Sequence[str]], *, title: str, note: str
) -> None:
    """Draw a table, its first column left and the others right, and save PNG and SVG."""
    columns = list(zip(headings, *lines, strict=True))
    widths = [max(map(len, column)) + 3 for column in columns]
    total = sum(widths)
    with figure(path, 0.092 * total + 0.5, 0.9 + 0.27 * (len(lines) + 1), formats=FORMATS) as canvas:
        _head(canvas, title, note)
        axes = canvas.subplots()
        axes.set_axis_off()
        axes.set_xlim(0, total)
        axes.set_ylim(len(lines) + 0.6, -0.6)
        left = 0
        for place, (column, width) in enumerate(zip(columns, widths, strict=True)):
            for row, text in enumerate(column):
                side = {"x": left, "ha": "left"} if place == 0 else {"x": left + width - 1, "ha": "right"}
                axes.text(
                    side["x"], row, as_line(text), ha=side["ha"], va="center",
                    color=QUIET if row == 0 else INK,
                )  # fmt: skip
            left += width
        axes.axhline(0.5, color=QUIET, linewidth=0.8)


def _head(canvas: Any, title: str, note: str) -> None:
    # constrained layout leaves room for a suptitle; the note is its second, smaller line
    canvas.suptitle(f"{as_line(title)}\n", x=0.01, ha="left", fontsize=13, linespacing=1.5)
    canvas.text(
        0.01, 1 - 0.36 / canvas.get_figheight(), as_line(note), fontsize=8, color=QUIET, va="top", ha="left"
    )


def _draw(axes: Any, line: Mapping[str, Any], place: int) -> None:
    if line.get("floor"):
        axes.plot(line["x"], line["y"], color=QUIET, linestyle=(0, (4, 3)), linewidth=1.4)
        return
    colour = _COLOURS[place % len(_COLOURS)]
    axes.plot(
        line["x"], line["y"], color=colour, marker=_MARKERS[place % len(_MARKERS)],
        linewidth=_STRONG if place == 0 else 1.3, markersize=6.5 if place == 0 else 4.5,
        zorder=4 if place == 0 else 3,
    )  # fmt: skip
    if "low" in line:
        axes.fill_between(line["x"], line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)


def _name_at_the_end(
    axes: Any, lines: Sequence[Mapping[str, Any]], names: Sequence[str], *, log_x: bool
) -> None:
    """Write each line's name right of the panel, at the height of its end but clear of the others."""
    low, high = (math.log(y) for y in axes.get_ylim())
    first, last = axes.get_xlim()
    ends = [((math.log(line["y"][-1]) - low) / (high - low), line["x"][-1], line) for line in lines]
    ends.sort(key=lambda end: end[0])
    heights = _spread([height for height, _, _ in ends], gap=0.052)
    for (height, x, line), shown in zip(ends, heights, strict=True):
        place = names.index(line["name"])
        colour = QUIET if line.get("floor") else _COLOURS[place % len(_COLOURS)]
        at = (math.log(x / first) / math.log(last / first)) if log_x else (x - first) / (last - first)
        axes.annotate(
            as_line(line["name"]), xy=(at, height), xytext=(1.05, shown), xycoords="axes fraction",
            textcoords="axes fraction", color=colour, va="center", fontsize=9,
            fontweight="bold" if place == 0 else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.55, "shrinkB": 4},
        )  # fmt: skip


def _ticks_of_a_short_axis(axes: Any) -> None:
    """Less than two decades would have one or two ticks: give them 1, 2 and 5."""
    low, high = axes.get_ylim()
    if high / low < 100:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        ticks = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
        axes.set_yticks([t for t in ticks if low <= t <= high])


def _clear(ticks: Sequence[float], ratio: float) -> list[float]:
    """Ascending ticks without those too near to the one before, the last kept."""
    kept: list[float] = []
    for tick in reversed(ticks):
        if not kept or kept[-1] / tick >= ratio:
            kept.append(tick)
    return kept[::-1]


def _spread(heights: Sequence[float], *, gap: float) -> list[float]:
    """Ascending heights moved as little as possible (in squares) so that neighbours are `gap` apart."""
    # without the gaps that are due, heights must not descend: runs that would are pooled at their mean
    pools: list[list[float]] = []
    for place, height in enumerate(heights):
        pools.append([height - place * gap])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    level = [_mean(pool) for pool in pools for _ in pool]
    return [y + place * gap for place, y in enumerate(level)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _plain(value: float) -> str:
    """A number without an exponent, three digits at most, thousands as k and millions as M."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / {'M': 1e6, 'k': 1e3}[letter]:.3g}{letter}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
