"""From rows to what is drawn: lines over windows and maps, bars of models, tables of costs, dots of runs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from qna.bench.measure.contender import FORWARD
from qna.bench.measure.rows import Row, on_gpu
from qna.bench.publish import accuracy_summary, mixer_summary
from qna.bench.publish.bandwidth import floor

ORDER = (
    "qna", "depthwise", "two-conv", "two-conv-compiled", "official", "swin", "halo", "neighbourhood",
    "sasa-unfold", "full", "copy", "qna-contiguous", "qna-reference",
)  # fmt: skip
FLOOR = "floor: bytes at copy speed"


@dataclass(frozen=True)
class Picture:
    """One picture: a file name without suffix, the kind of drawing, and its arguments.

    Attributes:
        name: of the file.
        kind: "lines", "bars", "table", "dots" or "points".
        arguments: of the drawing function, but the path.
    """

    name: str
    kind: str
    arguments: dict[str, Any]


def pictures(rows: Iterable[Row]) -> list[Picture]:
    """Every picture that the rows allow; of figures measured twice the last stands."""
    rows = list(rows)
    latest = list({(r.case, r.provider, r.mode, r.metric, r.threads, r.device): r for r in rows}.values())
    measured = [r for r in latest if r.device != "formula"]
    peers = [r for r in measured if "window" in r.extra]
    models = [r for r in measured if r.metric == "throughput"]
    counted = [r for r in latest if r.device == "formula"]
    found = [*_by_window(peers), *_by_map(peers), *_of_models(models)]
    if counted:
        found.append(_costs(counted))
    reached = accuracy_summary.picture(rows)
    if reached:
        found.append(Picture("accuracy", "dots", reached))
    mixers = mixer_summary.picture(rows)
    if mixers:
        found.append(Picture("mixers", "points", mixers))
    return found


def _by_window(rows: list[Row]) -> Iterable[Picture]:
    """Time and memory against the window: one picture per level, mode, dtype and threads; a panel per map."""
    groups = _grouped(rows, lambda r: (_level(r), r.mode, r.metric, r.extra["dtype"], r.threads, r.device))
    for (level, mode, metric, dtype, *_), group in groups.items():
        panels = []
        for size, of_map in _grouped(group, _map).items():
            lines = [
                _line(provider, line, "window")
                for provider, line in _in_order(_grouped(of_map, lambda r: r.provider))
                if len(line) > 1
            ]
            if lines:
                lines += _floor(of_map) if level == "op" and metric == "time" else []
                panels.append({"title": f"map {_size(size)}", "lines": lines})
        if panels:
            what, unit = ("Time", "ms") if metric == "time" else ("Extra memory", "MiB")
            yield Picture(
                f"{level}-{_file(mode)}-{metric}-by-window-{dtype}-{_place(group)}",
                "lines",
                {
                    "panels": panels,
                    "title": f"{what} against window size: {level}, {mode}",
                    "note": _note(group),
                    "xlabel": "window (taps along each axis)",
                    "ylabel": unit,
                },
            )


def _by_map(rows: list[Row]) -> Iterable[Picture]:
    """Time against the number of positions, where a window was measured on three maps or more."""
    times = [r for r in rows if r.metric == "time"]
    groups = _grouped(
        times,
        lambda r: (_level(r), r.mode, r.extra["dim"], r.extra["dtype"], r.threads, r.device),
    )
    for (level, mode, dim, dtype, *_), group in groups.items():
        panels = []
        for window, of_window in _grouped(group, lambda r: r.extra["window"]).items():
            lines = [
                _line(provider, line, "positions")
                for provider, line in _in_order(_grouped(of_window, lambda r: r.provider))
                if len({_positions(r) for r in line}) >= 3
            ]
            if lines:
                panels.append({"title": f"window {window}", "lines": lines})
        if panels:
            yield Picture(
                f"{level}-{_file(mode)}-time-by-map-c{dim}-{dtype}-{_place(group)}",
                "lines",
                {
                    "panels": panels,
                    "title": f"Time against map size: {level}, {mode}, {dim} channels",
                    "note": _note(group),
                    "xlabel": "positions in the batch",
                    "ylabel": "ms",
                    "log_x": True,
                },
            )


def _of_models(rows: list[Row]) -> Iterable[Picture]:
    groups = _grouped(rows, lambda r: (r.mode, r.extra["dtype"], r.threads, r.device))
    for (mode, dtype, *_), group in groups.items():
        panels = []
        for (batch, size), of_case in _grouped(group, lambda r: (r.extra["batch"], r.extra["size"])).items():
            bars = [{"name": r.provider, "value": r.p50, "low": r.p20, "high": r.p80} for r in of_case]
            panels.append({"title": f"batch {batch}, {size} x {size} pixels", "bars": bars})
        what = "Inference" if mode == FORWARD else "Training steps"
        yield Picture(
            f"models-{_file(mode)}-{dtype}-{_place(group)}",
            "bars",
            {
                "panels": panels,
                "title": f"{what} of whole models",
                "note": _note(group),
                "xlabel": "images/s",
            },
        )


def _costs(rows: list[Row]) -> Picture:
    """A line per layer and model."""
    lines = []
    for (case, provider), group in _grouped(rows, lambda r: (r.case, r.provider)).items():
        value = {r.metric: r.p50 for r in group}
        figures = (value["parameters"] / 1e6, value["macs"] / 1e3, value["moved"], value["peak"])
        _, size, *window, _ = case.split("-")
        lines.append((" ".join([provider, size, *window]), *(f"{v:.3g}" for v in figures)))
    headings = ("what", "parameters M", "GMAC", "bytes moved MiB", "peak maps MiB")
    note = f"counted by formulas, float32, inference; commit {rows[-1].commit}"
    return Picture(
        "cost", "table", {"headings": headings, "lines": lines, "title": "What it costs", "note": note}
    )  # fmt: skip


def _line(provider: str, rows: list[Row], over: str) -> dict[str, Any]:
    x = {"window": lambda r: r.extra["window"], "positions": _positions}[over]
    rows = sorted(rows, key=x)
    least = 1e-2 if rows[0].metric == "memory" else 0.0  # a logarithmic axis has no zero
    numbers = {"y": "p50", "low": "p20", "high": "p80"}
    values = {name: [max(least, getattr(r, field)) for r in rows] for name, field in numbers.items()}
    return {"name": provider, "x": [x(r) for r in rows], **values}


def _floor(rows: list[Row]) -> list[dict[str, Any]]:
    """The time in which the copy's bandwidth moves what QnA must move; needs the copy's rows."""
    ours = {r.extra["window"]: r for r in rows if r.provider == "qna"}
    copies = {r.extra["window"]: r for r in rows if r.provider == "copy"}
    points = [(window, floor(ours[window], copies[window])) for window in sorted(ours.keys() & copies.keys())]
    if len(points) < 2:
        return []
    x, y = (list(v) for v in zip(*points, strict=True))
    return [{"name": FLOOR, "x": x, "y": y, "floor": True}]


def _grouped(rows: Iterable[Row], key: Any) -> dict[Any, list[Row]]:
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)


def _in_order(groups: dict[str, list[Row]]) -> list[tuple[str, list[Row]]]:
    """This library first, then by kind; other names, another commit's for example, at the end."""
    return sorted(groups.items(), key=lambda g: (ORDER.index(g[0]) if g[0] in ORDER else len(ORDER), g[0]))


def _note(rows: list[Row]) -> str:
    """Where, with what and when, of the newest row."""
    r = max(rows, key=lambda r: r.date)
    threads = [] if on_gpu(r) else [f"{r.threads} thread" + ("s" if r.threads > 1 else "")]
    where = "; ".join([r.device, *threads, r.extra["dtype"], f"torch {r.torch}"])
    return f"{where}; commit {r.commit}; {r.date[:10]}; bands: p20 to p80"


def _level(row: Row) -> str:
    return row.case.split("-", 1)[0]


def _map(row: Row) -> tuple[int, int, int, int]:
    e = row.extra
    return e["batch"], e["height"], e["width"], e["dim"]


def _positions(row: Row) -> int:
    batch, height, width, _ = _map(row)
    return batch * height * width


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _place(rows: list[Row]) -> str:
    """Of rows of one device and thread count: "1t" on a processor, the name of a GPU."""
    row = rows[0]
    return re.sub(r"[^a-z0-9]+", "-", row.device.lower()) if on_gpu(row) else f"{row.threads}t"


def _file(mode: str) -> str:
    return mode.replace("+", "-")
