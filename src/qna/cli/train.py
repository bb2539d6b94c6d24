"""`qna train`."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

from qna._core.allocator import keep_freed_blocks
from qna._core.errors import InvalidInput, require
from qna._core.outside import as_line

if TYPE_CHECKING:
    from qna.train import TrainConfig

DESCRIPTION = """Train an image classifier, or another of the tasks by --task, evaluate it on held-out images,
and write a folder with the weights, the metrics, pictures and a report.

Every data set brings a recipe, and every other task one of its name; each option below overrides one of its
values. Three more options choose where the values come from: --recipe NAME takes another recipe, --config
FILE the config.json of an earlier run, and --resume FOLDER, alone, goes on with a run that was stopped; it
refuses if data or configuration have changed since, unless --anyway goes with it."""


def main(arguments: list[str]) -> int:
    """Train as told and write the report."""
    unfinished, rest = _take(arguments, "--resume")
    anyway = unfinished is not None and "--anyway" in rest
    rest = [word for word in rest if not (anyway and word == "--anyway")]
    if unfinished is not None and rest:
        raise InvalidInput(f"--resume goes on with a run as it was begun, so it takes no {rest[0]}")
    config = parse(rest) if unfinished is None else None
    for package in ("matplotlib", "safetensors"):
        require(package, extra="train", purpose="`qna train`")  # now, not when the training is over
    from qna.cli._progress import TerminalObserver
    from qna.cli._report import write_report
    from qna.train import RunStopped, fit, resume

    keep_freed_blocks()  # every update needs the same again
    observer = TerminalObserver()
    try:
        with observer:
            if config is not None:
                outcome = fit(config, observer)
            else:
                outcome = resume(Path(unfinished or ""), observer, anyway=anyway)
    except KeyboardInterrupt:
        # once updates are made, a signal waits for the one that is under way; this came before or insisted
        print(
            "qna: interrupted; `qna train --resume FOLDER` goes on with a run that had begun", file=sys.stderr
        )
        return 130
    except RunStopped as stop:
        if observer.is_main:
            print(f"qna: {as_line(str(stop))}", file=sys.stderr)
        return stop.status
    if observer.is_main:
        try:
            observer.table(write_report(outcome))
        except OSError as error:
            text = f"the run is complete in {outcome.folder}, but its report cannot be written: {error}"
            said = f"{text}; `qna train --resume {outcome.folder}` writes it anew"
            print(f"qna: {as_line(said)}", file=sys.stderr)
            return 1
    return 0


def parse(arguments: list[str]) -> TrainConfig:
    """The configuration that `arguments` ask for.

    Raises:
        InvalidInput: for a data set, recipe or configuration file that cannot be used.
        SystemExit: with status 2 for an unknown option (its nearest names are printed) or a bad value, and
            with status 0 for --help.
    """
    tyro = require("tyro", extra="train", purpose="`qna train`")
    from qna.data import DATA
    from qna.train.config import TrainConfig
    from qna.train.recipes import RECIPES, recipe, recipe_for

    # --data and --task choose the recipe and stay options
    data, _ = _take(arguments, "--data")
    task, _ = _take(arguments, "--task")
    name, arguments = _take(arguments, "--recipe")
    file, arguments = _take(arguments, "--config")
    if name is not None and file is not None:
        raise InvalidInput("--recipe and --config exclude each other: each gives all values")
    if file is not None:
        default = TrainConfig.from_file(Path(file))
    elif name is not None:
        default = recipe(name)
    else:
        default = recipe_for(data, task or "classification")
    if "-h" in arguments or "--help" in arguments:
        # tyro would not wrap it
        text = f"{DESCRIPTION}\n\nData sets: {', '.join(DATA)}. Recipes: {', '.join(RECIPES)}."
        width = shutil.get_terminal_size().columns
        print("\n\n".join(textwrap.fill(part, width) for part in text.split("\n\n")), end="\n\n")
    told = tyro.cli(
        tyro.conf.OmitArgPrefixes[_shown(TrainConfig, tyro)],
        args=arguments,
        default=_cast(default, lambda kind: _shown(kind, tyro)),
        prog="qna train",
        description="",
    )
    return _cast(told, lambda kind: kind.__bases__[0])


@cache
def _shown(kind: type, tyro: Any) -> type:
    """The dataclass `kind` with names for the values of its options that a reader need not decipher."""
    hints, members = get_type_hints(kind), []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            hint = _shown(hint, tyro)
        elif type(None) in get_args(hint):
            (plain,) = (part for part in get_args(hint) if part is not type(None))
            parts = get_args(plain) or (plain,)
            names = " ".join("..." if part is Ellipsis else part.__name__.upper() for part in parts)
            hint = Annotated[hint, tyro.conf.arg(metavar=names)]
        members.append((field.name, hint, dataclasses.field(default=field.default)))
    named = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    return dataclasses.make_dataclass(kind.__name__, members, bases=(kind,), namespace=named, frozen=True)


def _cast(value: Any, to: Callable[[type], type]) -> Any:
    """A dataclass, and those in it, as the kind that `to` makes of its own."""
    inner = {name: _cast(v, to) if dataclasses.is_dataclass(v) else v for name, v in vars(value).items()}
    return to(type(value))(**inner)


def _take(arguments: list[str], option: str) -> tuple[str | None, list[str]]:
    """The value of `option` (its last), and the arguments without it."""
    value, rest, waiting = None, [], list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == option:
            if not waiting:
                raise InvalidInput(f"{option} needs a value")
            value = waiting.pop(0)
        elif argument.startswith(option + "="):
            value = argument.partition("=")[2]
        else:
            rest.append(argument)
    return value, rest
