"""Hulls that the contenders named, the true ones behind them, and exact hulls over the steps of training."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile
from pathlib import Path

from qna.labs.pointer_hull.training import CONTENDERS, EXACT, ORACLE, SHOWN, case_of, number_of
from qna.labs.pointer_hull.verdict import key, sizes_of, split_sizes
from qna.labs.row import Metrics
from qna.plots import DrawnPolygon, plot_polygons


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw problems at the most points of training and at the fewest unseen, a row for each contender."""
    judged = sizes_of(metrics)
    trained, unseen = split_sizes(judged)
    rows = []
    for name in CONTENDERS:
        row = []
        for size in (*trained[-1:], *unseen[:1]):
            for sample in range(SHOWN):
                row += _polygon(name, size, sample, judged[size])
        if row:
            rows.append(row)
    curves: dict[str, tuple[list[float], list[float]]] = {}
    stages = sorted(n for case in metrics if (n := number_of(case, "stage")) is not None)
    for name in CONTENDERS:
        followed = [(n, metrics[case_of("stage", n)].get(name, {}).get(key(EXACT))) for n in stages]
        pairs = [(float(n), value) for n, value in followed if value is not None]
        if pairs:
            curves[name] = [x for x, _ in pairs], [y for _, y in pairs]
    plot_polygons(
        path,
        rows,
        curves,
        title="Corners of convex hulls in grey; in red what was named",
        note=note,
        xlabel="stages of training",
        ylabel=f"exact hulls of {trained[-1]} points (%)" if trained else "exact hulls (%)",
    )


def _polygon(
    name: str, size: int, sample: int, contenders: Mapping[str, Mapping[str, float]]
) -> list[DrawnPolygon]:
    """One problem with a contender's answer; none where it has no figures."""
    oracle, found = contenders.get(ORACLE, {}), contenders.get(name, {})
    points = list(zip(_series(oracle, f"x-{sample}"), _series(oracle, f"y-{sample}"), strict=False))
    right, named = ([points[int(i)] for i in _series(of, f"corner-{sample}")] for of in (oracle, found))
    if not points or not found:
        return []
    return [DrawnPolygon(f"{name}, {size} points", points, right, named)]


def _series(figures: Mapping[str, float], name: str) -> list[float]:
    keys = takewhile(lambda known: known in figures, (key(f"{name}-{at}") for at in count()))
    return [figures[known] for known in keys]
