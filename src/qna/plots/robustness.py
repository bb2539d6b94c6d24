"""Accuracy against the severity of corruptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qna._core.outside import as_line
from qna.plots._style import QUIET, figure

_MARKERS = "osD^vP"


def plot_robustness(
    path: Path,
    curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]],
    *,
    title: str = "",
) -> None:
    """Draw top-1 accuracy over severity, one panel per corruption, one line per network.

    Args:
        path: of the PNG.
        curves: per corruption and network: (severity, accuracy in [0, 1]); severity 0 is the clean image.
        title: above the picture.
    """
    from matplotlib import colormaps

    names = list(dict.fromkeys(name for lines in curves.values() for name in lines))
    colours = colormaps["viridis"]([i / max(1, len(names)) for i in range(len(names))])
    with figure(path, max(5, 2.5 * len(curves) + 0.6), 3.2 + 0.2 * len(names)) as canvas:
        canvas.suptitle(as_line(title), x=0.01, ha="left", fontsize=12)
        drawn: dict[str, Any] = {}
        row = canvas.subplots(1, len(curves), squeeze=False, sharey=True)[0]
        for axes, (kind, lines) in zip(row, curves.items(), strict=True):
            for name, points in lines.items():
                severities, accuracy = zip(*points, strict=True)
                drawn[name] = axes.plot(
                    severities,
                    [100 * a for a in accuracy],
                    # where lines fall together, the lower ones show at the edges
                    linewidth=1.5 + min(2.0, 0.7 * (len(names) - 1 - names.index(name))),
                    marker=_MARKERS[names.index(name) % len(_MARKERS)],
                    color=colours[names.index(name)],
                    markersize=5,
                )[0]
            axes.set(title=kind, xlabel="severity", xticks=range(6), xlim=(-0.2, 5.2))
            axes.set_ylim(bottom=0)
            axes.grid(axis="y", color=QUIET, alpha=0.2)
        row[0].set_ylabel("top-1 (%)")
        if len(names) > 1:
            canvas.legend(
                list(drawn.values()), list(map(as_line, drawn)), loc="outside lower left", fontsize=9, ncols=1
            )
