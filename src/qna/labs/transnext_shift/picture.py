"""Accuracy of every seed and contender, by what the test changed."""

from __future__ import annotations

from pathlib import Path

from qna.labs.row import Metrics
from qna.labs.transnext_shift.verdict import best_of, figures_of
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a dot for each seed, to the PNG at `path` and an SVG beside it."""
    tests = {"as in training": best_of(metrics, None)}
    tests |= {f"moved by {shift}": best for shift, best in figures_of(metrics, "shift").items()}
    tests |= {f"{scale} times the size": best for scale, best in figures_of(metrics, "scale").items()}
    contenders = list(tests["as in training"])
    panels = [
        {
            "title": name,
            "dots": [
                {"name": test, "values": list(best[name].values())}
                for test, best in tests.items()
                if name in best
            ],
        }
        for name in contenders
    ]
    plot_dots(
        path,
        panels,
        title="Objects that are moved, and images of other sizes, after training without either",
        note=f"each at its better learning rate; {note}",
        xlabel="right, %",
    )
