"""Rows of what the harness measured."""

from __future__ import annotations

from collections.abc import Iterator

from qna.bench.measure.harness import Measurement
from qna.bench.measure.machine import Stamp
from qna.bench.measure.rows import Row

# what the cases of whole models begin with, bare ones and those with adapters
WHOLE_MODELS = ("model", "adapters")


def rows_of(outcomes: list[Measurement], stamp: Stamp) -> list[Row]:
    """Rows of time, memory and, for models, images per second; none for what has no time."""
    return [row for outcome in outcomes if outcome.seconds for row in _rows_of_one(outcome, stamp)]


def _rows_of_one(outcome: Measurement, stamp: Stamp) -> Iterator[Row]:
    setting = outcome.extra["setting"]
    about = {**{k: v for k, v in outcome.extra.items() if k != "setting"}, **setting}
    about["calls"] = len(outcome.seconds)

    def row(metric: str, unit: str, numbers: tuple[float, float, float]) -> Row:
        return Row(
            outcome.case, outcome.provider, outcome.mode, metric, unit, *numbers,
            stamp.device, outcome.threads, stamp.torch, stamp.commit, stamp.date, about,
        )  # fmt: skip

    median, fast, slow = outcome.spread()
    yield row("time", "ms", (1e3 * median, 1e3 * fast, 1e3 * slow))
    if outcome.case.startswith(WHOLE_MODELS):
        batch = setting["batch"]
        yield row("throughput", "images/s", (batch / median, batch / slow, batch / fast))
    if outcome.peak is not None:
        mib = outcome.peak / 2**20
        yield row("memory", "MiB", (mib, mib, mib))
