"""The one schema of every measured figure, and files of such rows.

A row is a measurement with what is needed to repeat and to judge it: device, threads, versions, commit, date.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from qna._core.errors import InvalidInput
from qna._core.files import read_bytes, write_text
from qna._core.typed_json import from_json_value, parse_json

# bytes of a file, of which a row takes some five hundred
_LARGEST = 2**26
NUMBERS = ("p50", "p20", "p80")


@dataclass(frozen=True)
class Row:
    """One figure of one provider in one case.

    Attributes:
        case: what was asked, readable and equal for all providers of it, as ``op-8x56x56x64-k7-float32``.
        provider: what answered.
        mode: "forward", "forward+backward", "step" or "none".
        metric: "time", "memory" or "throughput"; of formulas "parameters", "macs", "moved" or "peak".
        unit: of the three numbers.
        p50: median.
        p20: 20th percentile.
        p80: 80th percentile.
        device: name of the processor or GPU; "formula" for what was counted.
        threads: CPU threads that it was given.
        torch: torch's version.
        commit: of this package, with "+" where files had changed.
        date: UTC, ISO 8601.
        extra: sizes of the case and notes of the provider.
    """

    case: str
    provider: str
    mode: str
    metric: str
    unit: str
    p50: float
    p20: float
    p80: float
    device: str
    threads: int
    torch: str
    commit: str
    date: str
    extra: dict[str, Any] = field(default_factory=dict)


COLUMNS = tuple(f.name for f in fields(Row))


def append(path: str | Path, rows: Iterable[Row]) -> None:
    """Add rows to a CSV file, new or with this schema; the file is replaced as a whole or not at all.

    Raises:
        InvalidInput: the file has other columns.
    """
    path = Path(path)
    before = [*read(path)] if path.exists() else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in [*before, *rows]:
        writer.writerow([_write(getattr(row, name)) for name in COLUMNS])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())


def read(*paths: str | Path) -> list[Row]:
    """All rows of the files, in order.

    Raises:
        InvalidInput: a file is missing, has other columns, or a cell that is not of its column's type.
    """
    return [row for path in map(Path, paths) for row in _read(path)]


def _read(path: Path) -> Iterator[Row]:
    if not path.is_file():
        raise InvalidInput(f"{path} is no file; `qna bench op --out {path}` would write one")
    try:
        text = read_bytes(path, _LARGEST).decode()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read as benchmark rows: {error}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            there = ", ".join(reader.fieldnames or ())[:200]
            raise InvalidInput(f"it has columns {there!r}, benchmark rows have {', '.join(COLUMNS)}")
        for cells in reader:
            yield _parse(cells)
    except (csv.Error, ValueError) as error:
        raise InvalidInput(f"{path}, line {reader.line_num}: {error}") from None


def on_gpu(row: Row) -> bool:
    """Whether a row was measured on a GPU, where CPU threads play no part."""
    return row.extra.get("device", "cpu") != "cpu"


def _write(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    # six digits are more than any timing has
    return f"{value:.6g}" if isinstance(value, float) else value


def _parse(cells: dict[str, Any]) -> Row:
    if None in cells or None in cells.values():
        raise ValueError(f"needs {len(COLUMNS)} cells")
    raw = {**cells, "threads": int(cells["threads"]), "extra": parse_json(cells["extra"], "extra")}
    return from_json_value(Row, raw | {name: float(cells[name]) for name in NUMBERS}, "a row")
