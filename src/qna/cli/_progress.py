"""What a person sees in the terminal while a command runs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qna._core.errors import require
from qna._core.outside import as_line
from qna.train import Observer, RunView
from qna.train.task import Headline
from qna.train.tasks import TASKS


class TerminalObserver(Observer):
    """A progress bar on a terminal; elsewhere a line per tenth of the run. Use it as a context."""

    def __init__(self):
        self.console = require("rich.console", extra="train", purpose="`qna train`").Console()
        self._text = require("rich.text", extra="train", purpose="`qna train`").Text
        columns = require("rich.progress", extra="train", purpose="`qna train`")
        self.bar = columns.Progress(
            columns.TextColumn("epoch {task.fields[epoch]}", markup=False),
            columns.BarColumn(bar_width=20),
            columns.TimeRemainingColumn(),
            columns.TextColumn("loss {task.fields[loss]}  held out {task.fields[headline]}", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.epochs = None
        self.headline: Headline | None = None
        self.is_main = True

    def __enter__(self) -> TerminalObserver:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, run: RunView) -> None:
        """Say what is trained on what, and start the bar."""
        self.is_main = run.learner.accelerator.is_main_process
        if not self.is_main:  # one process of several speaks
            self.console.quiet = True
        self.epochs, self.headline = run.config.optim.epochs, run.task.headline
        learner, unit = run.learner, TASKS[run.config.run.task].unit
        frozen = "" if learner.trained == learner.parameters else f", {learner.trained:,} of them trained"
        self._say(
            f"{run.config.network.model} ({learner.parameters:,} parameters{frozen}) on {run.data.name}: "
            f"{len(run.data.train):,} {unit} to train on, {len(run.data.held_out):,} held out, "
            f"{learner.device}"
        )
        wanted = run.config.run.out
        if run.progress.step:
            self._say(f"going on after update {run.progress.step} of {run.total_steps}")
        elif wanted is not None and wanted != run.folder:
            self._say(f"{wanted} is in use, so the results go to {run.folder}")
        self.task = self.bar.add_task(
            "train",
            total=run.total_steps,
            completed=run.progress.step,
            epoch=self._epoch(1),
            loss="-",
            headline="-",
        )

    def update(self, step: int, epoch: int, loss: float) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=step, epoch=self._epoch(epoch), loss=f"{loss:.3f}")

    def epoch(self, record: dict[str, Any]) -> None:
        """Show the figure of the held-out examples."""
        self.bar.update(self.task, headline=self._held_out(record))
        if not self.console.is_terminal and (10 * record["epoch"]) % self.epochs < 10:
            self._say(
                f"epoch {self._epoch(record['epoch'])}  loss {record['train_loss']:.3f}  "
                f"held out {self._held_out(record)}"
            )

    def unreadable(self, line: str) -> None:
        """Name the image."""
        self._say(f"skipped an image that cannot be read: {line}")

    def table(self, rows: dict[str, str]) -> None:
        """Print the closing table."""
        tables = require("rich.table", extra="train", purpose="`qna train`")
        table = tables.Table(show_header=False, box=None)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")  # a path must be whole to be copied
        for name, value in rows.items():
            table.add_row(
                name, self._text(as_line(value)), style="bold" if name.startswith("held out") else None
            )
        self.console.print(table, highlight=False)

    def _say(self, line: str) -> None:
        """Print a line that may hold names from outside."""
        self.console.print(self._text(as_line(line)), highlight=False)

    def _held_out(self, record: dict[str, Any]) -> str:
        assert self.headline is not None
        return self.headline.text(record[self.headline.name])

    def _epoch(self, number: int) -> str:
        return f"{number:>{len(str(self.epochs))}}/{self.epochs}"


@contextmanager
def counting(what: str | None) -> Iterator[Callable[[int], None]]:
    """A count of things done and the time that they took, on standard error.

    Only on a terminal where rich is installed: rows of figures that others read stay rows.

    Args:
        what: is counted; None counts nothing.

    Returns:
        what adds to the count.
    """
    if what is None or not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        yield lambda more: None
        return
    columns = require("rich.progress", extra="train", purpose="a progress bar")
    console = require("rich.console", extra="train", purpose="a progress bar").Console(stderr=True)
    with columns.Progress(
        columns.SpinnerColumn(),
        columns.TextColumn("{task.completed:,} " + what, markup=False),
        columns.TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda more: bar.advance(task, more)


@contextmanager
def bars(purpose: str) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Progress bars on standard error, one after the other; nothing where that is no terminal.

    Args:
        purpose: the command, for the error where rich is missing.

    Returns:
        what begins a bar, by its name and the number of all, and gives what advances it.
    """
    columns = require("rich.progress", extra="train", purpose=purpose)
    console = require("rich.console", extra="train", purpose=purpose).Console(stderr=True)
    shown = (
        columns.TextColumn("{task.description}", markup=False),
        columns.BarColumn(),
        columns.TaskProgressColumn(),
        columns.TimeRemainingColumn(),
    )
    with columns.Progress(*shown, console=console, transient=True, disable=not console.is_terminal) as bar:

        def begin(name: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(as_line(name), total=total)
            return lambda more: bar.advance(task, more)

        yield begin
