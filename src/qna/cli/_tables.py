"""Tables of scores, in the terminal and on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from qna._core.errors import require
from qna._core.outside import as_code, as_line, as_markdown

# heads and rows
Table = tuple[list[str], list[list[str]]]


def show(tables: Mapping[str, Table], notes: Sequence[str]) -> None:
    """Print tables by their titles, then notes; what comes from outside is printed as it is."""
    of_rich = require("rich.table", extra="train", purpose="`qna eval`").Table
    text = require("rich.text", extra="train", purpose="`qna eval`").Text
    console = require("rich.console", extra="train", purpose="`qna eval`").Console()
    for title, (head, rows) in tables.items():
        table = of_rich(
            title=text(as_line(title)), title_justify="left", title_style="bold", box=None, pad_edge=False
        )
        for number, name in enumerate(head):
            table.add_column(
                text(as_line(name)),
                justify="left" if number == 0 else "right",
                overflow="fold",
                no_wrap=number > 0,
            )
        for row in rows:
            table.add_row(*(text(as_line(cell)) for cell in row))
        console.print(table, highlight=False)
        console.print()
    for line in notes:
        console.print(text(as_line(line)))


def page(
    title: str,
    tables: Mapping[str, Table],
    notes: Sequence[str],
    pictures: Mapping[str, str],
    command: str,
) -> str:
    """The same in Markdown, with pictures (what each shows -> its file) and the command."""
    parts = [f"# {as_markdown(title)}"]
    for name, (head, rows) in tables.items():
        align = [":---", *["---:"] * (len(head) - 1)]
        cells = [[*map(as_markdown, head)], align, *([as_markdown(cell) for cell in row] for row in rows)]
        parts += [
            f"## {as_markdown(name[0].upper() + name[1:])}",
            "\n".join(f"| {' | '.join(row)} |" for row in cells),
        ]
    parts += map(as_markdown, notes)
    parts += [f"![{as_markdown(name)}]({file})" for name, file in pictures.items()]
    parts.append(f"{as_code(command)}, torch {torch.__version__}")
    return "\n\n".join(parts) + "\n"


def letters(count: int) -> list[str]:
    """What the columns of several networks are called, whose names may be long paths."""
    return [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(count)]
