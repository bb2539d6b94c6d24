"""Grids in Markdown: a line per provider, a column per size, figures or ratios, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from qna.bench.measure.rows import Row, on_gpu
from qna.bench.publish.bandwidth import bytes_over_copy, floor
from qna.bench.publish.pictures import ORDER

BANDWIDTH = "bandwidth"


def grid(
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
        made += _of_device(cells, options, heading)
    return made


def _of_device(
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
    body, used = [], []
    for name in names:
        of_name = [own.get((name, place, options["dtype"], options["threads"])) for place in columns]
        line = [_cell(row, cells, (name, at), options) for at, row in zip(columns, of_name, strict=True)]
        # who was not asked for and has no run in common with what it would be set against
        if wanted is None and set(line) == {"-"}:
            continue
        body.append([name, *line])
        used += [row for row in of_name if row is not None]
    if not body:
        return []
    unit = "% of the copy's bandwidth" if options["metric"] == BANDWIDTH else next(iter(own.values())).unit
    ratio = _ratio_name(options)
    first = f"{options['mode']}, {ratio or unit}"
    return [
        markdown([first, *map(heading, columns)], body)
        + f"\n\n{source(used, options.get('what', 'Medians'))}"
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
        return digits(row.p50)
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


def markdown(headings: list[str], lines: list[list[str]]) -> str:
    """Lines under headings; all columns but the first to the right."""
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [headings, rule, *lines])


def source(rows: Iterable[Row], what: str = "Medians") -> str:
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


def digits(value: float) -> str:
    """Three digits, without an exponent for large values."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
