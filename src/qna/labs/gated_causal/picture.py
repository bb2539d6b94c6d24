"""Bits per byte over the learning rate, beside the first token's attention and the largest activation."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from qna.labs import paired
from qna.labs.gated_causal.training import MIXERS
from qna.labs.gated_causal.verdict import BITS, FIRST, LARGEST, by_seed
from qna.labs.row import Metrics
from qna.plots import plot_lines

PANELS = {
    "bits per byte of held-out text": BITS,
    "attention that the first token gets, %": FIRST,
    "largest activation between blocks": LARGEST,
}


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw a panel for each figure, means over the seeds, to the PNG at `path` and an SVG beside it."""
    rates = sorted({paired.seed_and_rate(case)[1] for case in metrics})
    panels = []
    for title, figure in PANELS.items():
        at = {rate: by_seed(metrics, rate, figure) for rate in rates}
        lines = []
        for name in MIXERS:
            x = [rate for rate in rates if name in at[rate]]
            if x:
                every = [list(at[rate][name].values()) for rate in x]
                bounds = {"low": [min(v) for v in every], "high": [max(v) for v in every]}
                lines.append({"name": name, "x": x, "y": [mean(v) for v in every], **bounds})
        panels.append({"title": title, "lines": lines})
    plot_lines(
        path,
        panels,
        title="Decoders with and without gates, by learning rate",
        note=f"bands from the lowest to the highest seed; {note}",
        xlabel="highest learning rate",
        ylabel="",
        log_x=True,
    )
