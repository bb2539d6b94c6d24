"""What `qna eval` shows in the terminal, and leaves in a folder: a page, pictures, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from qna._core.files import write_text
from qna.cli._tables import Table, letters, page, show
from qna.eval import CLEAN, CORRUPTIONS, Failure, Judgement
from qna.eval.tables import class_rows, score_rows, to_json
from qna.plots import plot_calibration, plot_robustness

# with more classes, the terminal and the page show those that fare worst
_CLASSES_SHOWN = 20


def print_report(judgements: Sequence[Judgement], failures: Sequence[Failure] = ()) -> None:
    """Print every table; what comes from outside is printed as it is."""
    show(_tables(judgements), _notes(judgements, failures))


def write_report(
    folder: Path,
    judgements: Sequence[Judgement],
    arguments: Sequence[str],
    failures: Sequence[Failure] = (),
) -> dict[str, Path]:
    """Write everything to `folder`; return what is where.

    Args:
        folder: that exists.
        judgements: all on one data set.
        arguments: of `qna eval`, with which it can be run again.
        failures: networks that could not be judged.

    Raises:
        OSError: if the disk is full or not writable.
    """
    command = shlex.join(["qna", "eval", *arguments])
    about = {
        "data": judgements[0].data if judgements else None,
        "torch": torch.__version__,
        "command": command,
        "corruptions": {
            name: {"unit": c.unit, "levels": dict(enumerate(c.levels, start=1))}
            for name, c in CORRUPTIONS.items()
        },
        "models": [
            *(to_json(judgement) for judgement in judgements),
            *({"model": failure.name, "error": failure.error} for failure in failures),
        ],
    }
    write_text(folder / "scores.json", json.dumps(about, allow_nan=False) + "\n")
    write_text(folder / "scores.csv", _csv(score_rows(judgements, failures)))
    files = {"report": "report.md", "scores": "scores.csv", "everything": "scores.json"}
    pictures: dict[str, str] = {}
    if judgements:
        files["classes"] = "classes.csv"
        write_text(folder / files["classes"], _csv([row for j in judgements for row in class_rows(j)]))
        pictures = _draw(folder, judgements)
    names = [*(j.classifier.name for j in judgements), *(failure.name for failure in failures)]
    title = ", ".join(names) + (f" on {judgements[0].data}" if judgements else "")
    write_text(
        folder / "report.md",
        page(title, _tables(judgements), _notes(judgements, failures), pictures, command),
    )
    return {name: folder / file for name, file in {**files, **pictures}.items()}


def _draw(folder: Path, judgements: Sequence[Judgement]) -> dict[str, str]:
    pictures = {"calibration": "calibration.png"}
    bins = {j.classifier.name: [vars(b) for b in j.clean.bins] for j in judgements}
    errors = {j.classifier.name: j.clean.calibration_error for j in judgements}
    plot_calibration(folder / pictures["calibration"], bins, errors)
    curves = _curves(judgements)
    if curves:
        pictures["robustness"] = "robustness.png"
        title = f"Corrupted images of {judgements[0].data}"
        plot_robustness(folder / pictures["robustness"], curves, title=title)
    return pictures


def _tables(judgements: Sequence[Judgement]) -> dict[str, Table]:
    if not judgements:
        return {}
    found = {f"held-out images of {judgements[0].data}": _summary(judgements)}
    if len(judgements[0].results) > 1:
        found["top-1 under corruption (%)"] = _robustness(judgements)
    title = "part of each class's images that is right (%)"
    if len(judgements[0].classes) > _CLASSES_SHOWN:
        title += f", the {_CLASSES_SHOWN} that fare worst of {len(judgements[0].classes)}"
    found[title] = _classes(judgements)
    return found


def _columns(judgements: Sequence[Judgement]) -> list[str]:
    """What each network's column is called: names may be long paths, so that several go by letters."""
    return ["right"] if len(judgements) == 1 else letters(len(judgements))


def _summary(judgements: Sequence[Judgement]) -> Table:
    rows = []
    for letter, j in zip(_columns(judgements), judgements, strict=True):
        scores, speed = j.clean.scores, j.speed
        rows.append(
            [
                j.classifier.name if len(judgements) == 1 else f"{letter}  {j.classifier.name}",
                f"{j.classifier.parameters / 1e6:.2f}",
                f"{j.classifier.view.size}",
                f"{scores.images:,}",
                f"{100 * scores.top1:.2f}",
                f"{100 * scores.top5:.2f}",
                f"{scores.loss:.4f}",
                f"{100 * j.clean.calibration_error:.2f}",
                f"{speed.images_per_second:,.0f}",
            ]
        )
    head = ["model", "params (M)", "pixels", "images", "top-1", "top-5", "loss", "ECE", "images/s"]
    return head, rows


def _robustness(judgements: Sequence[Judgement]) -> Table:
    head = ["corruption", "severity", "level", *_columns(judgements)]
    rows = [["none", "", "", *(_percent(j.clean.scores.top1) for j in judgements)]]
    for condition in judgements[0].results:
        if condition == CLEAN:
            continue
        level = CORRUPTIONS[condition.corruption].levels[condition.severity - 1]
        values = [_percent(j.results[condition].scores.top1) for j in judgements]
        rows.append([condition.corruption, str(condition.severity), f"{level:g}", *values])
    rows.append(["mean of the corrupted", "", "", *(_percent(j.corrupted_top1) for j in judgements)])
    return head, rows


def _classes(judgements: Sequence[Judgement]) -> Table:
    columns = [class_rows(j) for j in judgements]
    first = columns[0]
    order = list(range(len(first)))
    if len(order) > _CLASSES_SHOWN:
        # a class without images has no part that is right, and comes last
        recalls = [[c[i]["recall"] for c in columns if c[i]["recall"] is not None] for i in order]
        order = sorted(order, key=lambda i: min(recalls[i], default=2.0))[:_CLASSES_SHOWN]
    head = ["class", "images", *_columns(judgements)]
    rows = [
        [first[i]["class"], f"{first[i]['images']:,}", *(_percent(column[i]["recall"]) for column in columns)]
        for i in order
    ]
    if len(columns) == 1:
        head.append("most often taken for")
        rows = [[*row, first[i]["most_often_taken_for"] or ""] for i, row in zip(order, rows, strict=True)]
    return head, rows


def _notes(judgements: Sequence[Judgement], failures: Sequence[Failure]) -> list[str]:
    lines = [f"Not judged: {failure.error}." for failure in failures]
    if not judgements:
        return lines
    speed = judgements[0].speed
    cores = f", {speed.threads} threads" if speed.device == "cpu" else ""
    lines += [
        "top-1, top-5 and ECE (expected calibration error, "
        f"{len(judgements[0].clean.bins)} bins of equal width) in %, loss in nats.",
        f"images/s: forward passes of {speed.batch} images on {speed.device}{cores}, median of at least 5; "
        "reading images is not in it.",
    ]
    if len(judgements[0].results) > 1:
        units = "; ".join(f"{name}: {c.unit}" for name, c in CORRUPTIONS.items())
        lines.append(f"Levels of the corruptions, which are this project's own: {units}.")
    for j in judgements:
        if j.unreadable:
            lines.append(
                f"{len(j.unreadable):,} images could not be read and count nowhere: {j.unreadable[0]}"
                + (" ... (scores.json names all)" if len(j.unreadable) > 1 else "")
            )
            break
    return lines


def _curves(judgements: Sequence[Judgement]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Per corruption and classifier: (severity, top-1), the clean images as severity 0."""
    kinds = dict.fromkeys(c.corruption for c in judgements[0].results if c != CLEAN)
    return {
        kind: {
            j.classifier.name: [
                (0, j.clean.scores.top1),
                *((c.severity, r.scores.top1) for c, r in j.results.items() if c.corruption == kind),
            ]
            for j in judgements
        }
        for kind in kinds
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _percent(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.2f}"
