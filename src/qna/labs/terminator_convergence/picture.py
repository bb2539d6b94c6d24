"""How many held-out images each contender names right: after one epoch, in the mean, at the end."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.row import Metrics
from qna.labs.terminator_convergence.networks import NETWORKS, OPTIMIZERS, contender
from qna.labs.terminator_convergence.verdict import FIRST, LAST, MEAN
from qna.plots import plot_dots

_PANELS = {"after one epoch": FIRST, "mean over epochs": MEAN, "at the end": LAST}


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a dot for each seed, to the PNG at `path` and an SVG beside it."""
    names = [contender(network, optimizer) for network in NETWORKS for optimizer in OPTIMIZERS]
    plot_dots(
        path,
        [
            {
                "title": title,
                "dots": [
                    {"name": name, "values": list(by_seed.values())}
                    for name, by_seed in paired.best_of(metrics, names, figure).items()
                ],
            }
            for title, figure in _PANELS.items()
        ],
        title="Terminator and a residual network of its size",
        note=f"each at its better learning rate; {note}",
        xlabel="of held-out images named right, %",
        digits=1,
    )
