"""From rows of the table of mixers to its lines and to a picture of accuracy against time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Any

from qna.bench.measure.contender import BACKWARD
from qna.bench.measure.rows import Row
from qna.bench.subjects.accuracy import TOP1
from qna.bench.subjects.mixer_table import CONTENDERS, TABLE, best_rate


def reached(rows: Iterable[Row], data: str) -> dict[str, list[Row]]:
    """Of each mixer that was trained, in the table's order: its runs at its best rate, by seed.

    The first seed chooses the rate. Of a command that was run twice the last run stands.
    """
    latest = {
        row.extra["command"]: row for row in rows if (row.case, row.metric) == (f"{TABLE}-{data}", TOP1)
    }
    found = {}
    for name in CONTENDERS:
        runs = sorted(
            (row for row in latest.values() if row.provider == name), key=lambda row: row.extra["seed"]
        )
        if runs:
            rate = best_rate(data, name, runs[0].extra["seed"], runs)
            found[name] = [row for row in runs if row.extra["lr"] == rate]
    return found


def headings(data: Sequence[str]) -> list[str]:
    """Above `lines`."""
    return ["", "parameters, k", "MMAC", *(f"{place}, {what}" for place in data for what in ("%", "rate"))]


def lines(rows: Iterable[Row], data: Sequence[str]) -> tuple[list[list[str]], list[Row]]:
    """A line per mixer below `headings`, means over the seeds with each behind; and the runs they are of."""
    rows = list(rows)
    by_data = {place: reached(rows, place) for place in data}
    made, used = [], []
    for name in CONTENDERS:
        of_name = [by_data[place].get(name, []) for place in data]
        if not any(of_name):
            continue
        about = next(runs[0].extra for runs in of_name if runs)
        line = [name, f"{about['parameters'] / 1e3:.0f}", f"{about['macs'] / 1e6:.1f}"]
        for runs in of_name:
            line += [_right(runs), f"{runs[0].extra['lr']:g}"] if runs else ["-", "-"]
            used += runs
        made.append(line)
    return made, used


def about(runs: Sequence[Row]) -> str:
    """What the training was."""
    first = runs[0].case.removeprefix(f"{TABLE}-")
    return f"1 pass, at the best of the rates that the first seed tried; MMAC of an image of {first}"


def picture(rows: Iterable[Row], size: int = 224) -> dict[str, Any] | None:
    """Arguments of `qna.plots.plot_points`: per data set, accuracy against milliseconds; None without rows.

    Args:
        rows: of any kind.
        size: pixels of the image whose forward and backward pass is timed.
    """
    rows = list(rows)
    times = {
        row.provider: row
        for row in rows
        if row.case.startswith(f"{TABLE}-1x{size}x{size}-") and (row.mode, row.metric) == (BACKWARD, "time")
    }
    data = dict.fromkeys(
        row.case.removeprefix(f"{TABLE}-")
        for row in rows
        if row.metric == TOP1 and row.case.startswith(f"{TABLE}-")
    )
    panels = []
    for place in data:
        points = [
            {"name": name, "x": times[name].p50, "y": mean(run.p50 for run in runs)}
            for name, runs in reached(rows, place).items()
            if name in times
        ]
        if points:
            panels.append({"title": place, "points": points})
    if not panels:
        return None
    last = max(times.values(), key=lambda row: row.date)
    versions = f"{last.device}; torch {last.torch}; {last.date[:10]}"
    return {
        "panels": panels,
        "title": "Every mixer in one backbone",
        "note": f"one pass, best rate, mean over the seeds; {versions}",
        "xlabel": f"forward and backward at {size} pixels, ms",
        "ylabel": "test images right, %",
    }


def _right(runs: Sequence[Row]) -> str:
    each = ", ".join(f"{run.p50:.1f}" for run in runs)
    return f"{mean(run.p50 for run in runs):.1f} ({each})" if len(runs) > 1 else each
