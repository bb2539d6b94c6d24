"""`qna plot`: pictures of measurements."""

from __future__ import annotations

import argparse
from pathlib import Path

from qna._core.errors import InvalidInput
from qna._core.outside import as_line


def main(arguments: list[str]) -> int:
    """Draw what was measured."""
    parser = argparse.ArgumentParser("qna plot", description="Draw pictures of measurements.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser(
        "bench",
        help="time and memory against window and map size, models, costs, accuracy",
        description="Draw every picture that benchmark rows allow, as PNG and SVG.",
    )
    verb.add_argument("csv", nargs="+", type=Path, metavar="CSV", help="files that `qna bench` wrote")
    verb.add_argument("--out", type=Path, default=Path("plots"), metavar="DIR", help="folder (default plots)")
    verb.set_defaults(run=_bench)
    options = parser.parse_args(arguments)
    return options.run(options)


def _bench(options: argparse.Namespace) -> int:
    from qna.bench.measure.rows import read
    from qna.bench.publish.pictures import pictures
    from qna.plots import plot_bars, plot_dots, plot_lines, plot_points, plot_table

    found = pictures(read(*options.csv))
    if not found:
        files = ", ".join(map(str, options.csv))
        raise InvalidInput(f"{files}: no picture, which needs two windows, three maps, models, costs or runs")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"cannot make the folder {options.out}: {error.strerror}") from None
    draw = {
        "lines": plot_lines,
        "bars": plot_bars,
        "table": plot_table,
        "dots": plot_dots,
        "points": plot_points,
    }
    for picture in found:
        path = options.out / f"{picture.name}.png"
        try:
            draw[picture.kind](path, **picture.arguments)
        except OSError as error:
            raise InvalidInput(f"cannot write {path}: {error}") from None
        print(as_line(f"{path} and .svg"))
    return 0
