"""`qna train`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qna._core.errors import InvalidInput, check_choice, require

if TYPE_CHECKING:
    from qna.train import TrainConfig

DESCRIPTION = """Train an image classifier, evaluate it on held-out images, and write a folder with the
weights, the metrics, pictures and a report.

Every data set brings a recipe; each option below overrides one of its values. Two more options choose where
the values come from: --recipe NAME takes another recipe, --config FILE the config.json of an earlier run."""


def main(arguments: list[str]) -> int:
    """Train as told and write the report."""
    config = parse(arguments)
    for package in ("matplotlib", "safetensors"):
        require(package, extra="train", purpose="`qna train`")  # now, not when the training is over
    from qna.cli._progress import TerminalObserver
    from qna.cli._report import write_report
    from qna.train import fit

    observer = TerminalObserver()
    with observer:
        outcome = fit(config, observer)
    observer.table(write_report(outcome, config))
    return 0


def parse(arguments: list[str]) -> TrainConfig:
    """The configuration that `arguments` ask for.

    Raises:
        InvalidInput: for a data set, recipe or configuration file that cannot be used.
        SystemExit: with status 2 for an unknown option (its nearest names are printed) or a bad value, and
            with status 0 for --help.
    """
    tyro = require("tyro", extra="train", purpose="`qna train`")
    from pathlib import Path

    from qna.data import DATA
    from qna.train.config import TrainConfig
    from qna.train.recipes import RECIPES, recipe

    data, _ = _take(arguments, "--data")
    name, arguments = _take(arguments, "--recipe")
    file, arguments = _take(arguments, "--config")
    if name is not None and file is not None:
        raise InvalidInput("--recipe and --config exclude each other: each gives all values")
    if data is not None:
        check_choice("data", data, DATA)
    if file is not None:
        default = TrainConfig.from_file(Path(file))
    else:
        default = recipe(name or data or next(iter(RECIPES)))
    return tyro.cli(
        tyro.conf.OmitArgPrefixes[TrainConfig],
        args=arguments,
        default=default,
        prog="qna train",
        description=DESCRIPTION,
    )


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
