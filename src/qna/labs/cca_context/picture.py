"""Time and cache over the prompt, and a file beside it with the bits per byte."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.cca_context.networks import NETWORKS
from qna.labs.cca_context.times import case_at
from qna.labs.cca_context.training import CASE
from qna.labs.cca_context.verdict import AS_IT_IS, STATE, TIME, TUNED, lengths_in
from qna.labs.row import Metrics
from qna.plots import plot_dots, plot_lines


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw both, PNG and SVG each."""
    lengths, panels = lengths_in(metrics), []
    for title, figure, unit in (
        ("time until the first token, ms", TIME, 1),
        ("cache behind the prompt, MiB", STATE, 2**20),
    ):
        lines = []
        for name in NETWORKS:
            x = [n for n in lengths if figure in metrics[case_at(n)].get(name, {})]
            if x:
                y = [metrics[case_at(n)][name][figure] / unit for n in x]
                lines.append({"name": name, "x": x, "y": y})
        panels.append({"title": title, "lines": lines})
    plot_lines(
        path,
        panels,
        title="Long prompts by full attention, core tokens and windows",
        note=note,
        xlabel="positions of the prompt",
        ylabel="",
        log_x=True,
    )
    text = {case: found for case, found in metrics.items() if case.startswith(f"{CASE}-")}
    dots = []
    for title, figure in (("after further steps", TUNED), ("before", AS_IT_IS)):
        best = paired.best_of(text, NETWORKS, figure)
        dots.append({"title": title, "dots": [{"name": n, "values": [*v.values()]} for n, v in best.items()]})
    plot_dots(
        path.with_name(f"{path.stem}-text.png"),
        dots,
        title="Text by full attention, core tokens and windows with as large a cache",
        note=note,
        xlabel="bits per byte of held-out text",
        digits=3,
    )
