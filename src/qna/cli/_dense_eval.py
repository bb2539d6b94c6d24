"""Networks judged side by side on what lies on images, masks or boxes: what all such tasks share."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qna._core.errors import InvalidInput
from qna._core.files import write_text
from qna._core.outside import as_line
from qna.cli._progress import bars
from qna.cli._tables import Table, letters, page, show
from qna.eval import UnusableAnswers
from qna.train.folder import claim_folder

# (network, its scores)
Found = Sequence[tuple[Any, Any]]


@dataclass(frozen=True)
class DenseTask:
    """What a task says of its networks.

    Attributes:
        judge: (network, data, told) -> scores and a line on each image that could not be read; `told` is
            called with numbers of images.
        tables: by title, of what was found; names of columns are given.
        plain: network and scores as JSON.
        picture: what is drawn.
        draw: (path, network, data) -> whether there was anything to draw.
        notes: sentences on how the figures are read.
    """

    judge: Callable[[Any, Any, Callable[[int], object]], tuple[Any, Sequence[str]]]
    tables: Callable[[Found, Sequence[str]], dict[str, Table]]
    plain: Callable[[Any, Any], dict[str, Any]]
    picture: str
    draw: Callable[[Path, Any, Any], bool]
    notes: Sequence[str] = ()


def eval_networks(
    task: DenseTask,
    networks: Sequence[Any],
    data: Any,
    options: argparse.Namespace,
    arguments: Sequence[str],
) -> int:
    """Judge, show and write; the command's status.

    Args:
        task: what the networks are for.
        networks: with name and require_fit.
        data: with name and held_out.
        options: of the command.
        arguments: with which it can be run again.

    Raises:
        InvalidInput: two networks are called the same, or one does not fit the data.
    """
    names = [network.name for network in networks]
    for number, network in enumerate(networks):
        if network.name in names[:number]:
            raise InvalidInput(f"{network.name} is named twice")
        network.require_fit(data)
    found, failures = [], []
    unreadable: Sequence[str] = ()
    with bars("`qna eval`") as begin:
        for network in networks:
            try:
                scores, unreadable = task.judge(network, data, begin(network.name, len(data.held_out)))
            except UnusableAnswers as error:
                failures.append((network.name, str(error)))
            else:
                found.append((network, scores))
    tables = task.tables(found, letters(len(found))) if found else {}
    notes = [f"Not judged: {error}." for _, error in failures]
    notes += task.notes if found else ()
    if unreadable:
        more = " ... (scores.json names all)" if len(unreadable) > 1 else ""
        notes.append(f"{len(unreadable):,} images could not be read and count nowhere: {unreadable[0]}{more}")
    show(tables, notes)
    folder = claim_folder(options.out or Path("runs") / f"eval-{Path(data.name).name}")
    try:
        files = _write(folder, task, found, data, tables, notes, failures, unreadable, arguments)
    except OSError as error:
        print(f"qna: cannot write the report to {as_line(str(folder))}: {error}", file=sys.stderr)
        return 1
    for name, file in files.items():
        print(f"{name:<12}  {as_line(str(folder / file))}")
    return 1 if failures else 0


def _write(  # noqa: PLR0917
    folder: Path,
    task: DenseTask,
    found: Found,
    data: Any,
    tables: Mapping[str, Table],
    notes: Sequence[str],
    failures: Sequence[tuple[str, str]],
    unreadable: Sequence[str],
    arguments: Sequence[str],
) -> dict[str, str]:
    """The files of the report, by what they are."""
    command, pictures = shlex.join(["qna", "eval", *arguments]), {}
    for (network, _), letter in zip(found, letters(len(found)), strict=True):
        title, file = task.picture, f"{task.picture}.png"
        if len(found) > 1:
            title, file = f"{title} of {network.name}", f"{task.picture}-{letter}.png"
        if task.draw(folder / file, network, data):
            pictures[title] = file
    about = {
        "data": data.name,
        "command": command,
        "models": [
            *(task.plain(*pair) for pair in found),
            *({"model": name, "error": error} for name, error in failures),
        ],
        "unreadable": list(unreadable),
    }
    write_text(folder / "scores.json", json.dumps(about, allow_nan=False) + "\n")
    names = [*(network.name for network, _ in found), *(name for name, _ in failures)]
    title = f"{', '.join(names)} on {data.name}"
    write_text(folder / "report.md", page(title, tables, notes, pictures, command))
    return {"report": "report.md", "everything": "scores.json", **pictures}
