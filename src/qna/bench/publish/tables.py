"""Tables in Markdown pages, made from the rows of benchmarks/results and from nothing else.

A page holds blocks ``<!-- bench KIND option=value ... -->`` to ``<!-- /bench -->``; what is between is
replaced. Kinds:

- ``windows level=op mode=forward metric=time map=8x56x56x64``: a line per provider, a column per window.
- ``maps level=op mode=forward metric=time window=7 map=1x14x14x64,8x56x56x64``: a line per provider, a column
  per map, of those named or all.
- ``models mode=forward map=1x224x224,8x224x224``: images per second, a line per model, a column per batch and
  image size, of those named or all.
  With ``table=adapters`` those that were measured bare and with adapters, in turns.
- ``cost``: what formulas count.
- ``accuracy data=cifar10 providers=qna,swin``: what models reached within a budget, a line per model.
- ``mixers data=cifar10,fashion-mnist``: every mixer in one backbone, a line each: size, and what it reached
  with its best rate. Its times and memory are ``models table=mixers metric=time mode=forward+backward``.
- ``commands data=cifar10 providers=qna,swin``: the commands of the first seeds of those runs.
- ``rates data=cifar10``: what short runs reached at several learning rates, a line per model.

Options of the first three: ``dtype=float32``, ``threads=1``, ``providers=qna,depthwise``, and for ratios
instead of figures ``over=depthwise`` (to another provider), ``over_threads=1`` or ``over_dtype=float32``.
``metric=bandwidth`` gives, of op's times, the percentage of the copy's bandwidth that a provider reaches with
the bytes that it must move. Rows of several devices make a table each.

``python -m qna.bench.publish.tables`` rewrites README.md and docs/*.md; with ``--check`` it only tells which
differ.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from qna._core.errors import InvalidInput, check_choice
from qna._core.files import write_text
from qna.bench.measure.rows import Row, read
from qna.bench.publish import accuracy_summary, mixer_summary
from qna.bench.publish.grid import digits, grid, markdown, source
from qna.bench.subjects.accuracy import TOP1

BLOCK = re.compile(r"(<!-- bench (?P<spec>[^>]*?) -->\n).*?(<!-- /bench -->)", re.DOTALL)
OPTIONS = {
    "level", "mode", "metric", "map", "window", "dtype", "threads", "providers", "over", "over_threads",
    "over_dtype", "data", "table",
}  # fmt: skip
DEFAULTS = {"level": "op", "mode": "forward", "metric": "time", "dtype": "float32", "threads": "1"}


def update(root: Path, *, write: bool = True) -> list[Path]:
    """Bring the tables of README.md and docs/*.md up to date with benchmarks/results/*.csv.

    Returns:
        the pages that were, or with ``write=False`` would be, changed.

    Raises:
        InvalidInput: a block asks for something that there is not; the text names page and block.
    """
    rows = read(*sorted((root / "benchmarks" / "results").glob("*.csv")))
    changed = []
    for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        if page.is_file():
            before = page.read_text(encoding="utf-8")
            after = filled(before, rows, page.name)
            if after != before:
                changed.append(page)
                if write:
                    write_text(page, after)
    return changed


def filled(text: str, rows: list[Row], page: str) -> str:
    """The text with every block's table made anew."""

    def fill(match: re.Match[str]) -> str:
        try:
            return f"{match[1]}{block(match['spec'], rows)}\n{match[3]}"
        except InvalidInput as error:
            raise InvalidInput(f"{page}, block 'bench {match['spec']}': {error}") from None

    return BLOCK.sub(fill, text)


def block(spec: str, rows: list[Row]) -> str:
    """The Markdown of one block."""
    kind, *words = spec.split()
    make = KINDS[check_choice("table", kind, KINDS)]
    given: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        given[check_choice("option", name, OPTIONS)] = value
    chosen = make(rows, {**DEFAULTS, **given})
    return "\n\n".join(chosen) if chosen else "*Not measured yet.*"


def _windows(rows: list[Row], options: dict[str, str]) -> list[str]:
    def fits(row: Row) -> bool:
        return row.case.startswith(f"{options['level']}-{options.get('map')}-k")

    return grid(rows, options, fits, lambda row: row.extra["window"], lambda window: f"k={window}")


def _maps(rows: list[Row], options: dict[str, str]) -> list[str]:
    window, level = options.get("window"), options["level"]
    kinds = (
        tuple(f"{level}-{size}-" for size in options["map"].split(",")) if "map" in options else f"{level}-"
    )

    def fits(row: Row) -> bool:
        return row.case.startswith(kinds) and f"-k{window}-" in row.case

    def size(row: Row) -> tuple[int, ...]:
        return tuple(row.extra[name] for name in ("batch", "height", "width", "dim"))

    return grid(rows, options, fits, size, lambda size: "x".join(map(str, size)))


def _models(rows: list[Row], options: dict[str, str]) -> list[str]:
    table = options.get("table", "model")
    if table in ("model", "adapters") and options["metric"] == "time":
        options = {**options, "metric": "throughput"}
    sizes = [f"{size}-" for size in options["map"].split(",")] if "map" in options else [""]
    kinds = tuple(f"{table}-{size}" for size in sizes)
    return grid(
        rows,
        options,
        lambda row: row.case.startswith(kinds) and row.metric != TOP1,
        lambda row: (row.extra["size"], row.extra["batch"]),
        lambda key: f"{key[0]} px, batch {key[1]}",
    )


def _cost(rows: list[Row], options: dict[str, str]) -> list[str]:
    lines: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.device == "formula":
            _, size, *window, _ = row.case.split("-")
            lines.setdefault(" ".join([row.provider, size, *window]), {})[row.metric] = row.p50
    if not lines:
        return []
    headings = ["", "parameters, M", "GMAC", "bytes moved, MiB", "peak of maps, MiB"]
    body = [
        [name, *(digits(v) for v in (c["parameters"] / 1e6, c["macs"] / 1e3, c["moved"], c["peak"]))]
        for name, c in lines.items()
    ]
    return [markdown(headings, body) + "\n\nCounted by formulas, float32, inference."]


def _accuracy(rows: list[Row], options: dict[str, str]) -> list[str]:
    entries = _entries(rows, options)
    if not entries:
        return []
    runs = [run for entry in entries for run in entry.runs]
    grid = markdown([*accuracy_summary.HEADINGS], [entry.line() for entry in entries])
    return [f"{grid}\n\n{source(runs, accuracy_summary.budget(entries))}"]


def _mixers(rows: list[Row], options: dict[str, str]) -> list[str]:
    places = _data(rows, options).split(",")
    lines, runs = mixer_summary.lines(rows, places)
    if not runs:
        return []
    grid = markdown(mixer_summary.headings(places), lines)
    return [f"{grid}\n\n{source(runs, mixer_summary.about(runs))}"]


def _rates(rows: list[Row], options: dict[str, str]) -> list[str]:
    case = f"rate-{_data(rows, options)}"
    options = {**options, "mode": "train", "metric": "top1", "what": "One run each"}
    return grid(
        rows, options, lambda row: row.case == case, lambda row: row.extra["lr"], lambda lr: f"{lr:g}"
    )


def _commands(rows: list[Row], options: dict[str, str]) -> list[str]:
    commands = [entry.runs[0].extra["command"] for entry in _entries(rows, options)]
    return ["\n".join(f"    {command}" for command in commands)] if commands else []


def _entries(rows: list[Row], options: dict[str, str]) -> list[accuracy_summary.Entry]:
    wanted = options["providers"].split(",") if "providers" in options else None
    return accuracy_summary.entries(rows, _data(rows, options), wanted)


def _data(rows: list[Row], options: dict[str, str]) -> str:
    if "data" not in options:
        raise InvalidInput(f"needs data=NAME, one of {', '.join(accuracy_summary.data_sets(rows))}")
    return options["data"]


KINDS: dict[str, Callable[[list[Row], dict[str, str]], list[str]]] = {
    "windows": _windows,
    "maps": _maps,
    "models": _models,
    "cost": _cost,
    "accuracy": _accuracy,
    "mixers": _mixers,
    "commands": _commands,
    "rates": _rates,
}


def main(arguments: list[str]) -> int:
    """Rewrite, or check; 1 if a check found a page that differs."""
    parser = argparse.ArgumentParser(
        "qna.bench.publish.tables", description="Make the benchmark tables of the pages."
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a page would change")
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="repository (default: here)")
    options = parser.parse_args(arguments)
    changed = update(options.root, write=not options.check)
    for page in changed:
        sys.stdout.write(f"{page} {'is out of date: run make tables' if options.check else 'rewritten'}\n")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
