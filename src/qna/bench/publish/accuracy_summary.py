"""From rows of training runs to lines of a table and dots of a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean
from typing import Any

from qna.bench.measure.rows import Row

PREFIX = "accuracy-"
ABOUT = "a dot per seed; few passes, not trained to convergence"
HEADINGS = ("", "parameters, M", "MMAC", "CPU minutes", "minutes", "right, %", "each seed")


@dataclass(frozen=True)
class Entry:
    """The runs of one model on one data set, ordered by seed.

    Attributes:
        name: of the entrant.
        runs: at least one; all with one recipe.
    """

    name: str
    runs: tuple[Row, ...]

    @property
    def right(self) -> float:
        """Per cent of the test images, mean over the seeds."""
        return mean(run.p50 for run in self.runs)

    def line(self) -> list[str]:
        """Cells below `HEADINGS`; times are means over the seeds."""
        extra = self.runs[0].extra
        minutes = (mean(run.extra[key] for run in self.runs) / 60 for key in ("cpu_seconds", "seconds"))
        return [
            self.name,
            f"{extra['parameters'] / 1e6:.3f}",
            f"{extra['macs'] / 1e6:.2f}",
            *(f"{m:.1f}" for m in minutes),
            f"{self.right:.1f}",
            ", ".join(f"{run.p50:.1f}" for run in self.runs),
        ]


def data_sets(rows: Iterable[Row]) -> list[str]:
    """Names of the data sets that the rows are of, in their order."""
    return list(dict.fromkeys(r.case.removeprefix(PREFIX) for r in rows if r.case.startswith(PREFIX)))


def entries(rows: Iterable[Row], data: str, names: Iterable[str] | None = None) -> list[Entry]:
    """What was measured on a data set, in the order of `names` or else of the rows.

    Of a command that was run twice the last run stands.
    """
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.case == PREFIX + data:
            found.setdefault(row.provider, {})[row.extra["command"]] = row
    return [
        Entry(name, tuple(sorted(found[name].values(), key=lambda row: row.extra["seed"])))
        for name in (found if names is None else names)
        if name in found
    ]


def budget(entries: list[Entry]) -> str:
    """What the training was, and how far a figure may be off for the number of test images alone."""
    runs = [run for entry in entries for run in entry.runs]
    first = runs[0].extra
    passes = "1 pass" if first["epochs"] == 1 else f"{first['epochs']} passes"
    share = mean(run.p50 for run in runs) / 100
    error = 100 * math.sqrt(share * (1 - share) / first["held_out"])
    return (
        f"{passes} over {first['trained_on']:,} images; {first['held_out']:,} test images, whose "
        f"number alone gives a standard error of {error:.1f}"
    )


def picture(rows: list[Row]) -> dict[str, Any] | None:
    """Arguments of `qna.plots.plot_dots`, a panel per data set; None without rows."""
    panels = []
    for data in data_sets(rows):
        found = entries(rows, data)
        dots = [{"name": entry.name, "values": [run.p50 for run in entry.runs]} for entry in found]
        panels.append({"title": f"{data}: {budget(found).split(';')[0]}", "dots": dots})
    if not panels:
        return None
    run = max((row for row in rows if row.case.startswith(PREFIX)), key=lambda row: row.date)
    versions = f"torch {run.torch}; commit {run.commit}; {run.date[:10]}"
    return {
        "panels": panels,
        "title": "Accuracy within a small budget",
        "note": f"{ABOUT}; {run.device}; {versions}",
        "xlabel": "test images right, %",
    }
