"""The matrices that heads learned, and the error over the number of examples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qna.labs.icl_regression.training import LOSS, TWO, seed_and_length
from qna.labs.row import Metrics
from qna.plots import plot_lines, plot_matrices


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw KQ and OV of the first seed, and errors over examples to a file beside it, PNG and SVG each."""
    rows = []
    for case, contenders in metrics.items():
        found = _matrices(contenders.get(TWO, {}), "kq")
        if found:
            what = case.split("-seed")[0]
            rows.append((f"{TWO}, {what}", found + _matrices(contenders[TWO], "ov")))
    plot_matrices(path, rows, title="What heads compare by (KQ) and give (OV)", note=note)
    panels = _over_examples(metrics)
    plot_lines(
        path.with_name(f"{path.stem}-examples.png"),
        panels,
        title="Regression within a prompt, by its number of examples",
        note=note,
        xlabel="examples in the prompt",
        ylabel="mean squared error",
        log_x=True,
    )


def _matrices(figures: Mapping[str, float], matrix: str) -> list[tuple[str, list[list[float]]]]:
    """The heads' matrices of these names, named "KQ 1" and so on."""
    entries: dict[int, dict[tuple[int, int], float]] = {}
    for key, value in figures.items():
        if key.startswith(f"none {matrix}-") and key.removeprefix(f"none {matrix}-")[0].isdigit():
            head, i, j = map(int, key.removeprefix(f"none {matrix}-").split("-"))
            entries.setdefault(head, {})[i, j] = value
    found = []
    for head, at in sorted(entries.items()):
        height, width = (1 + max(place[axis] for place in at) for axis in (0, 1))
        table = [[at.get((i, j), 0.0) for j in range(width)] for i in range(height)]
        found.append((f"{matrix.upper()} {head + 1}", table))
    return found


def _over_examples(metrics: Metrics) -> list[dict]:
    """Means over the seeds."""
    by_name: dict[str, dict[int, list[float]]] = {}
    for case, contenders in metrics.items():
        if case.startswith("independent-"):
            _, length = seed_and_length(case)
            for name, figures in contenders.items():
                by_name.setdefault(name, {}).setdefault(length, []).append(figures[LOSS])
    lines = [
        {"name": name, "x": sorted(of), "y": [sum(of[n]) / len(of[n]) for n in sorted(of)]}
        for name, of in by_name.items()
    ]
    return [{"title": "independent covariates", "lines": lines}]
