"""What routing costs by the number of capsules, and what it finds."""

from __future__ import annotations

from pathlib import Path

from qna.labs.capsule_retrieval.pairs import TASKS
from qna.labs.capsule_retrieval.training import CONTENDERS, ROUTED, capsules_of
from qna.labs.capsule_retrieval.verdict import MEMORY, RECALL, TIME
from qna.labs.row import Metrics
from qna.plots import plot_dots, plot_lines

# what is told as 0, as a peak below a page of memory, has no place on a logarithmic axis
LEAST = 1e-3


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Dots of recall, and lines of time and memory in a file beside it, PNG and SVG each."""
    panels = []
    for task in TASKS:
        cases = [contenders for case, contenders in metrics.items() if case.startswith(f"{task}-seed")]
        values = {n: [case[n][RECALL] for case in cases if n in case] for n in CONTENDERS}
        panels.append({"title": task, "dots": [{"name": n, "values": v} for n, v in values.items() if v]})
    plot_dots(path, panels, title="Pairs found at first among held-out ones", note=note, xlabel="right, %")
    counts = sorted((n, case) for case in metrics if (n := capsules_of(case)) is not None)
    plot_lines(
        path.with_name(f"{path.stem}-cost.png"),
        [
            {
                "title": title,
                "lines": [
                    {
                        "name": name,
                        "x": [n for n, _ in counts],
                        "y": [max(metrics[case][name][figure], LEAST) for _, case in counts],
                    }
                    for name in ROUTED
                ],
            }
            for title, figure in (("time, ms", TIME), ("peak memory, MiB", MEMORY))
        ],
        title="Routing with all gradients, by the number of capsules",
        note=note,
        xlabel="capsules",
        ylabel="",
        log_x=True,
    )
