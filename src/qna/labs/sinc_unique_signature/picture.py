"""Balanced accuracy of each contender, a panel for each number of values."""

from __future__ import annotations

from pathlib import Path

from qna.labs.row import Metrics
from qna.labs.sinc_unique_signature.networks import CONTENDERS
from qna.labs.sinc_unique_signature.verdict import by_task
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw to `path`, PNG and SVG."""
    tasks = by_task(metrics)
    panels = []
    for values in sorted({values for values, _ in tasks}):
        dots = {
            name: [
                accuracy
                for (number, _), seeds in sorted(tasks.items())
                if number == values
                for accuracy in seeds.get(name, [])
            ]
            for name in CONTENDERS
        }
        panels.append(
            {
                "title": f"features of {values} values",
                "dots": [{"name": name, "values": found} for name, found in dots.items() if found],
            }
        )
    plot_dots(
        path,
        panels,
        title="Is a neighbour's feature the sum of all neighbours' features?",
        note=note,
        xlabel="balanced accuracy, %; 50 is a guess",
    )
