"""Outcomes in a terminal: a progress bar while they are measured, a table per case when they are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from qna._core.errors import require
from qna._core.outside import as_line
from qna.bench.measure.harness import Measurement
from qna.bench.measure.outcomes import WHOLE_MODELS
from qna.bench.subjects.comparison import Group
from qna.bench.subjects.cost import Cost

SHORT = {"float32": "fp32", "float64": "fp64", "bfloat16": "bf16", "float16": "fp16"}


class Terminal:
    """Prints groups of outcomes as they come; a context manager.

    Args:
        cases: how many groups will come.
        steps: calls of `progress` that one group makes at most.

    Raises:
        MissingExtra: rich is not installed.
    """

    def __init__(self, cases: int, steps: int):
        console = require("rich.console", extra="train", purpose="`qna bench`")
        progress = require("rich.progress", extra="train", purpose="`qna bench`")
        self.console = console.Console()
        self.steps, self.done, self.taken = steps, 0, 0
        self.bar: Any = progress.Progress(
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.description}", markup=False),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("start", total=cases)

    def __enter__(self) -> Terminal:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def progress(self, what: str) -> None:
        """One step further."""
        self.taken = min(self.taken + 1, self.steps)
        self.bar.update(self.task, description=as_line(what), completed=self.done + self.taken / self.steps)

    def shown(self, groups: Iterable[Group]) -> Iterator[list[Measurement]]:
        """Print each group's table and pass its outcomes on."""
        for title, outcomes in groups:
            self.done, self.taken = self.done + 1, 0
            self.bar.update(self.task, completed=self.done)
            shown, remarks = grid_of(title, outcomes)
            self.console.print(shown)
            for remark in remarks:
                self.console.print(_text(f"  {remark}"), style="dim", highlight=False)
            self.console.print()
            yield outcomes


def grid_of(title: str, outcomes: list[Measurement]) -> tuple[Any, list[str]]:
    """A line per provider: median time with half of p80 - p20, and memory; and why others have none."""
    rich_table = require("rich.table", extra="train", purpose="`qna bench`")
    box = require("rich.box", extra="train", purpose="`qna bench`")
    modes = list(dict.fromkeys(o.mode for o in outcomes))
    models = outcomes[0].case.startswith(WHOLE_MODELS)
    result = rich_table.Table(
        title=_text(title, "table.title"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    result.add_column("provider", no_wrap=True)
    for mode in modes:
        unit = "images/s" if models else "ms"
        result.add_column(f"{mode}\n{unit}", justify="right", no_wrap=True)
        result.add_column("\nMiB", justify="right", no_wrap=True, min_width=5)
    remarks: dict[str, None] = {}
    for label, of_one in _by_provider(outcomes).items():
        cells: list[str] = []
        for mode in modes:
            outcome = of_one[mode]
            cells += [_speed(outcome) if models else _time(outcome), _memory(outcome)]
        reasons = dict.fromkeys(o.reason for o in of_one.values() if o.reason)
        # said once, not for each dtype and thread count
        remarks |= {f"{o.provider}: {o.reason}": None for o in of_one.values() if o.reason}
        remarks |= {
            f"{o.provider}, {o.mode}: called from Python, not recorded: {o.extra['not_recorded']}": None
            for o in of_one.values()
            if "not_recorded" in o.extra
        }
        wrong = any(r.startswith("WRONG") for r in reasons)
        if any(o.seconds for o in of_one.values()) or wrong:
            result.add_row(_text(label), *cells, style="red" if wrong else None)
    return result, list(remarks)


def print_costs(costs: list[Cost]) -> None:
    """A line per layer or model, in the units that papers use."""
    headings = ["what", "params M", "GMAC", "moved MiB", "peak MiB"]
    lines = [
        (c.what(), f"{c.parameters / 1e6:.3g}", *_amounts(c.macs, c.moved, c.peak)) for c in costs
    ]  # fmt: skip
    _print("Counted by formulas; 1 MAC = 2 FLOPs; float32", headings, lines)


def print_layers(title: str, layers: list[tuple[str, str, int, int, int]]) -> None:
    """A line per layer of a model."""
    headings = ["layer", "kind", "GMAC", "moved MiB", "peak MiB"]
    _print(title, headings, [(name, kind, *_amounts(*numbers)) for name, kind, *numbers in layers])


def _text(line: str, style: str = "") -> Any:
    """A line that may hold names from outside, which rich reads no markup in."""
    return require("rich.text", extra="train", purpose="`qna bench`").Text(as_line(line), style=style)


def _amounts(macs: int, moved: int, peak: int) -> tuple[str, str, str]:
    return f"{macs / 1e9:.3g}", f"{moved / 2**20:.1f}", f"{peak / 2**20:.1f}"


def _print(title: str, headings: list[str], lines: list[tuple[str, ...]]) -> None:
    rich_table = require("rich.table", extra="train", purpose="`qna bench`")
    box = require("rich.box", extra="train", purpose="`qna bench`")
    result = rich_table.Table(
        title=_text(title, "table.title"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for i, heading in enumerate(headings):
        left = i == 0 or heading == "kind"
        result.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for line in lines:
        result.add_row(*map(_text, line))
    require("rich.console", extra="train", purpose="`qna bench`").Console().print(result)


def _by_provider(outcomes: list[Measurement]) -> dict[str, dict[str, Measurement]]:
    """Outcomes by mode for each label, which names dtype and threads where there are several."""
    dtypes = {_dtype(o) for o in outcomes}
    threads = {o.threads for o in outcomes}
    found: dict[str, dict[str, Measurement]] = {}
    for o in outcomes:
        label = o.provider
        if len(dtypes) > 1:
            label += f" {SHORT[_dtype(o)]}"
        if len(threads) > 1:
            label += f" x{o.threads}"
        found.setdefault(label, {})[o.mode] = o
    return found


def _dtype(outcome: Measurement) -> str:
    return outcome.case.rsplit("-", 1)[1]


def _time(outcome: Measurement) -> str:
    if not outcome.seconds:
        return "-"
    median, low, high = outcome.spread()
    if len(outcome.seconds) == 1:
        return f"{_digits(1e3 * median)} once"
    return f"{_digits(1e3 * median)} ±{50 * (high - low) / median:2.0f}%"


def _speed(outcome: Measurement) -> str:
    if not outcome.seconds:
        return "-"
    return _digits(outcome.extra["setting"]["batch"] / outcome.spread()[0])


def _digits(value: float) -> str:
    """Three digits, without an exponent for large values."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _memory(outcome: Measurement) -> str:
    return "-" if outcome.peak is None else _digits(outcome.peak / 2**20)
