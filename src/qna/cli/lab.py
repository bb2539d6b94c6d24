"""`qna lab`: published claims, tried in minutes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from qna._core.errors import InvalidInput, check_choice, require

if TYPE_CHECKING:
    from qna.labs.row import Lab, LabConfig

HELP = """usage: qna lab list
       qna lab run NAME [--out DIR] [--csv FILE] [options of the laboratory]

  list   laboratories, each with its claim and its budget
  run    try one published claim beside a control that can win, and print the verdict;
         a run that was stopped goes on when it is called again

`qna lab run NAME --help` tells a laboratory's options."""
STOPPED = 130


def main(arguments: list[str]) -> int:
    """List laboratories or run one."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return 0
    verb, *rest = arguments
    return VERBS[check_choice("verb of qna lab", verb, VERBS)](rest)


def _list(arguments: list[str]) -> int:
    from qna.labs import LABS

    if arguments:
        raise InvalidInput(f"`qna lab list` takes no arguments, got {' '.join(arguments)}")
    for name, lab in LABS.items():
        print(f"{name}: {lab.about.title} ({lab.about.venue}), {lab.config().minutes:g} CPU minutes")
        print(f"  {lab.claim}")
    return 0


def _run(arguments: list[str]) -> int:
    from qna.labs import LABS

    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return 0
    name, *rest = arguments
    lab = LABS[check_choice("lab", name, LABS)]
    config, out, csv = parse(lab, rest)
    require("matplotlib", extra="train", purpose="`qna lab run`")  # now, not when the work is done
    from qna.bench.measure import rows
    from qna.labs.running import run_lab
    from qna.train import RunStopped

    if csv is not None and csv.exists():
        rows.read(csv)  # what cannot be added to is said now, not when the work is done
    folder = out or Path("runs") / "labs" / name
    try:
        with _Bar(name) as bar:
            outcome = run_lab(lab, config, folder, bar.progress)
    except (KeyboardInterrupt, RunStopped):
        print(f"qna: stopped; finished parts are kept, the same command goes on in {folder}", file=sys.stderr)
        return STOPPED
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be written: {error}; finished parts are kept") from None
    if csv is not None:
        there = rows.read(csv) if csv.exists() else []
        new = [row for row in rows.read(folder / "rows.csv") if row not in there]
        rows.append(csv, new)
        print(f"{len(new)} rows added to {csv}")
    print(f"{outcome.verdict.word}: {outcome.verdict.figures}\n{folder}")
    return 0


VERBS = {"list": _list, "run": _run}


def parse(lab: Lab, arguments: list[str]) -> tuple[LabConfig, Path | None, Path | None]:
    """The configuration that `arguments` ask for, the folder, and the file that gets the rows too.

    Raises:
        SystemExit: with status 2 for an unknown option or a bad value, with status 0 for --help.
    """
    tyro = require("tyro", extra="train", purpose="`qna lab run`")

    def place(text: str) -> Any:
        return Annotated[Path | None, tyro.conf.arg(help=text)]

    out = place(f"Folder of the run; None for runs/labs/{lab.name}.")
    csv = place("File of benchmark rows that gets those of a complete run too.")
    asked = dataclasses.make_dataclass(
        "asked",
        [
            ("config", tyro.conf.OmitArgPrefixes[lab.config], dataclasses.field(default=lab.config())),
            ("out", out, dataclasses.field(default=None)),
            ("csv", csv, dataclasses.field(default=None)),
        ],
    )
    found: Any = tyro.cli(
        tyro.conf.OmitArgPrefixes[asked],
        args=arguments,
        prog=f"qna lab run {lab.name}",
        description=f"{lab.claim}\n\nControl: {lab.control}",
    )
    return found.config, found.out, found.csv


class _Bar:
    """A progress bar on a terminal; elsewhere a line per part. Use it as a context."""

    def __init__(self, name: str):
        self.console = require("rich.console", extra="train", purpose="`qna lab run`").Console()
        columns = require("rich.progress", extra="train", purpose="`qna lab run`")
        self.bar = columns.Progress(
            columns.BarColumn(),
            columns.TaskProgressColumn(),
            columns.TimeElapsedColumn(),
            columns.TextColumn("{task.description}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(name, total=None)

    def __enter__(self) -> _Bar:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def progress(self, done: int, parts: int, what: str) -> None:
        """Show how many parts are done and which begins."""
        self.bar.update(self.task, completed=done, total=parts, description=what)
        if not self.console.is_terminal:
            self.console.print(f"{done} of {parts} parts: {what}", highlight=False)
