"""Tables in Markdown pages, made from the rows of benchmarks/results and from nothing else.

A page holds blocks ``<!-- bench KIND option=value ... -->`` to ``<!-- /bench -->``; what is between is
replaced. Kinds:

- ``windows level=op mode=forward metric=time map=8x56x56x64``: a line per provider, a column per window.
- ``maps level=op mode=forward metric=time window=7``: a line per provider, a column per map.
- ``models mode=forward``: images per second, a line per model, a column per batch and image size.
- ``cost``: what formulas count.
- ``accuracy data=cifar10 providers=qna,swin``: what models reached within a budget, a line per model.
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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from qna._core.errors import InvalidInput, check_choice
from qna._core.files import write_text
from qna.bench.measure.rows import Row, on_gpu, read
from qna.bench.publish import accuracy_summary
from qna.bench.publish.bandwidth import bytes_over_copy, floor
from qna.bench.publish.pictures import ORDER

BLOCK = re.compile(r"(<!-- bench (?P<spec>[^>]*?) -->\n).*?(<!-- /bench -->)", re.DOTALL)
OPTIONS = {
    "level", "mode", "metric", "map", "window", "dtype", "threads", "providers", "over", "over_threads",
    "over_dtype", "data",
}  # fmt: skip
BANDWIDTH = "bandwidth"
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
            return f"{match[1]}{table(match['spec'], rows)}\n{match[3]}"
        except InvalidInput as error:
            raise InvalidInput(f"{page}, block 'bench {match['spec']}': {error}") from None

    return BLOCK.sub(fill, text)


def table(spec: str, rows: list[Row]) -> str:
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

    return _grid(rows, options, fits, lambda row: row.extra["window"], lambda window: f"k={window}")


def _maps(rows: list[Row], options: dict[str, str]) -> list[str]:
    window = options.get("window")

    def fits(row: Row) -> bool:
        return row.case.startswith(f"{options['level']}-") and f"-k{window}-" in row.case

    def size(row: Row) -> tuple[int, ...]:
        return tuple(row.extra[name] for name in ("batch", "height", "width", "dim"))

    return _grid(rows, options, fits, size, lambda size: "x".join(map(str, size)))


def _models(rows: list[Row], options: dict[str, str]) -> list[str]:
    options = {**options, "metric": "throughput" if options["metric"] == "time" else options["metric"]}
    return _grid(
        rows,
        options,
        lambda row: row.case.startswith("model-"),
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
        [name, *(_digits(v) for v in (c["parameters"] / 1e6, c["macs"] / 1e3, c["moved"], c["peak"]))]
        for name, c in lines.items()
    ]
    return [_markdown(headings, body) + "\n\nCounted by formulas, float32, inference."]


def _accuracy(rows: list[Row], options: dict[str, str]) -> list[str]:
    entries = _entries(rows, options)
    if not entries:
        return []
    runs = [run for entry in entries for run in entry.runs]
    grid = _markdown([*accuracy_summary.HEADINGS], [entry.line() for entry in entries])
    return [f"{grid}\n\n{_source(runs, accuracy_summary.budget(entries))}"]


def _rates(rows: list[Row], options: dict[str, str]) -> list[str]:
    case = f"rate-{_data(rows, options)}"
    options = {**options, "mode": "train", "metric": "top1", "what": "One run each"}
    return _grid(
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
    "commands": _commands,
    "rates": _rates,
}


def _grid(
    rows: Iterable[Row],
    options: dict[str, str],
    fits: Callable[[Row], bool],
    column: Callable[[Row], Any],
    heading: Callable[[Any], str],
) -> list[str]:
    """A table per device: a line per provider, a column per value of `column`."""
    metric = "time" if options["metric"] == BANDWIDTH else options["metric"]
    rows = [
        r for r in rows
        if r.device != "formula" and fits(r) and r.mode == options["mode"] and r.metric == metric
    ]  # fmt: skip
    made = []
    for device in dict.fromkeys(r.device for r in rows):
        # of figures measured twice the last stands
        cells = {
            (r.provider, column(r), r.extra["dtype"], str(r.threads)): r for r in rows if r.device == device
        }  # fmt: skip
        made += _one_grid(cells, options, heading)
    return made


def _one_grid(
    cells: dict[tuple[str, Any, str, str], Row], options: dict[str, str], heading: Callable[[Any], str]
) -> list[str]:
    wanted = options.get("providers", "").split(",") if options.get("providers") else None
    own = {
        key: row
        for key, row in cells.items()
        if key[2:] == (options["dtype"], options["threads"])
        and (wanted is None or key[0] in wanted)
        and (options["metric"] != BANDWIDTH or bytes_over_copy(row) is not None)
    }
    columns = sorted({key[1] for key in own})
    names = sorted({key[0] for key in own}, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))
    if not own:
        return []
    body = []
    for name in names:
        line = [name]
        for place in columns:
            row = own.get((name, place, options["dtype"], options["threads"]))
            line.append(_cell(row, cells, (name, place), options))
        body.append(line)
    unit = "% of the copy's bandwidth" if options["metric"] == BANDWIDTH else next(iter(own.values())).unit
    ratio = _ratio_name(options)
    first = f"{options['mode']}, {ratio or unit}"
    return [
        _markdown([first, *map(heading, columns)], body)
        + f"\n\n{_source(own.values(), options.get('what', 'Medians'))}"
    ]


def _cell(
    row: Row | None,
    cells: dict[tuple[str, Any, str, str], Row],
    place: tuple[str, Any],
    options: dict[str, str],
) -> str:
    if row is None:
        return "-"
    if options["metric"] == BANDWIDTH:
        copy = cells.get(("copy", place[1], options["dtype"], options["threads"]))
        least = floor(row, copy) if copy is not None and copy.date == row.date else None
        return "-" if least is None else f"{100 * least / row.p50:.0f}"
    if _ratio_name(options) is None:
        return _digits(row.p50)
    name, column = place
    over = cells.get(
        (
            options.get("over", name),
            column,
            options.get("over_dtype", options["dtype"]),
            options.get("over_threads", options["threads"]),
        )
    )
    # figures of two runs make no ratio: the machine may have changed between them
    if over is None or over.date != row.date or over.p50 == 0:
        return "-"
    return f"{row.p50 / over.p50:.2f}"


def _ratio_name(options: dict[str, str]) -> str | None:
    named = {"over": "{}", "over_threads": "{} thread", "over_dtype": "{}"}
    parts = [text.format(options[name]) for name, text in named.items() if name in options]
    return f"{options['metric']} over {' and '.join(parts)}" if parts else None


def _markdown(headings: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [headings, rule, *lines])


def _source(rows: Iterable[Row], what: str = "Medians") -> str:
    """What the figures are, then device, versions and dates of a table's rows."""
    rows = list(rows)

    def every(values: Iterable[str]) -> str:
        return ", ".join(sorted(set(values)))

    threads = rows[0].threads
    facts = [
        rows[0].device,
        "" if on_gpu(rows[0]) else f"{threads} thread{'s' if threads > 1 else ''}",
        every(r.extra["dtype"] for r in rows if "dtype" in r.extra),
        f"torch {every(r.torch for r in rows)}",
        f"commit {every(r.commit for r in rows)}",
        every(r.date[:10] for r in rows),
    ]
    return f"<sub>{what}. {'; '.join(filter(None, facts))}.</sub>"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


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
