"""Figures of laboratories as rows of the one schema, and back: metrics, and the runs that a file holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qna._core.errors import InvalidInput
from qna._core.typed_json import from_json_value, known_fields
from qna.bench.measure.machine import Stamp
from qna.bench.measure.rows import Row, read
from qna.labs.row import Figure, Metrics


@dataclass(frozen=True)
class LabRun:
    """The rows of one complete run.

    Attributes:
        lab: its name.
        file: the CSV.
        rows: in order.
    """

    lab: str
    file: Path
    rows: tuple[Row, ...]

    @property
    def command(self) -> str:
        """What repeats it."""
        return self.rows[-1].extra["command"]

    @property
    def cpu_minutes(self) -> float:
        """What it took."""
        return cpu_seconds(self.rows) / 60


@dataclass(frozen=True)
class Origin:
    """Where a figure comes from, as the extra of its row says.

    Attributes:
        lab: name of the laboratory.
        part: of its work.
        begun: date of the run.
        command: what repeats it.
        cpu_seconds: that the part took.
    """

    lab: str
    part: str
    begun: str
    command: str
    cpu_seconds: float


def read_figures(path: Path) -> list[Row]:
    """The rows of laboratories in a CSV, in order; other rows are passed over.

    Raises:
        InvalidInput: as `read`, or a row does not say where it comes from.
    """
    rows = [row for row in read(path) if "lab" in row.extra]
    for number, row in enumerate(rows, start=1):
        where = f"the extra of row {number} of a laboratory"
        try:
            from_json_value(Origin, known_fields(Origin, row.extra, where), where)
        except InvalidInput as error:
            raise InvalidInput(f"{path}: {error}") from None
    return rows


def row_of(figure: Figure, stamp: Stamp, threads: int, extra: dict[str, Any]) -> Row:
    """A figure with where and when; `extra` says of which laboratory, part and run."""
    middle, low, high = (
        # as many digits as the file keeps, so that a verdict is the same before and after
        float(f"{figure.p50 if value is None else value:.6g}")
        for value in (figure.p50, figure.p20, figure.p80)
    )
    return Row(
        f"lab-{extra['lab']}-{figure.case}", figure.provider, figure.mode, figure.metric, figure.unit,
        middle, low, high, stamp.device, threads, stamp.torch, stamp.commit, stamp.date,
        {**figure.extra, **extra},
    )  # fmt: skip


def metrics_of(rows: Iterable[Row]) -> Metrics:
    """The rows' medians by case, contender and "mode metric"; of one measured twice the last stands."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        case = row.case.removeprefix(f"lab-{row.extra['lab']}-")
        metrics.setdefault(case, {}).setdefault(row.provider, {})[f"{row.mode} {row.metric}"] = row.p50
    return metrics


def cpu_seconds(rows: Iterable[Row]) -> float:
    """CPU seconds of the parts that the rows are of, each counted once."""
    return sum({row.extra["part"]: row.extra["cpu_seconds"] for row in rows}.values())


def runs_in(path: Path) -> list[LabRun]:
    """The runs of laboratories whose rows a CSV holds, in order; other rows are passed over."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in read_figures(path):
        found.setdefault((row.extra["lab"], row.extra["begun"]), []).append(row)
    return [LabRun(lab, path, tuple(rows)) for (lab, _), rows in found.items()]
