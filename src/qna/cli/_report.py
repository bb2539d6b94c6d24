"""The page that a training run leaves for a person, with the pictures that its task has."""

from __future__ import annotations

import shlex
from typing import Any

from qna._core.files import write_text
from qna._core.outside import as_code, as_markdown
from qna.cli import (
    _classification_report,
    _detection_report,
    _language_report,
    _segmentation_report,
    _volumes_report,
)
from qna.plots import plot_learning
from qna.train import Outcome
from qna.train.tasks import TASKS

# what is said and drawn of a task, by its name: modules with result, closing, figures, draw, and sentences on
# how some of the pictures are read
DRAWN = {
    "classification": _classification_report,
    "detection": _detection_report,
    "language": _language_report,
    "segmentation": _segmentation_report,
    "volumes": _volumes_report,
}


def write_report(outcome: Outcome) -> dict[str, str]:
    """Write pictures and report.md to the run's folder; return the closing table, what -> where."""
    folder, task = outcome.folder, DRAWN.get(outcome.config.run.task)
    pictures = {} if task is None else task.draw(outcome, plot_learning)
    write_text(folder / "report.md", _page(outcome, pictures))
    files = {
        "report": "report.md",
        "weights": "model.safetensors",
        "configuration": "config.json",
        "metrics": "metrics.json",
        "log": "log.jsonl",
        **pictures,
    }
    rows = {
        "held out": _headline(outcome) if task is None else task.closing(outcome),
        "time": f"{outcome.metrics['seconds']:.0f} s",
    }
    return rows | {name: str(folder / file) for name, file in files.items()}


def _headline(outcome: Outcome) -> str:
    """The figure of any task in words."""
    headline, m = outcome.task.headline, outcome.metrics
    return f"{headline.name} {headline.text(m[headline.name])} on {m['held_out']:,} held-out examples"


def _figures(outcome: Outcome) -> dict[str, str]:
    """All single figures that a task reports."""
    report = outcome.task.report(outcome.scores)
    numbers = {name: value for name, value in report.items() if isinstance(value, int | float)}
    return {f"held out, {as_markdown(name)}": f"{v:.6g}" for name, v in numbers.items() if name != "held_out"}


def _page(outcome: Outcome, pictures: dict[str, str]) -> str:
    m: dict[str, Any] = outcome.metrics
    config, task = outcome.config, DRAWN.get(outcome.config.run.task)
    result = _headline(outcome) if task is None else task.result(outcome)
    origin, kind = (
        getattr(outcome.data, "origin", None),
        "examples" if task is None else TASKS[config.run.task].unit,
    )
    counts = f"{m['trained_on']:,} trained on, {m['held_out']:,} held out{_unreadable(m['unreadable'])}"
    model = as_markdown(" ".join([m["model"], *config.network.model_kwargs]))
    rows = {
        "model": f"{model}, {m['parameters']:,} parameters",
        "data": as_markdown(m["data"] if origin is None else f"{m['data']}: {origin}"),
        kind: counts,
        **(_figures(outcome) if task is None else task.figures(outcome)),
        "training": f"{m['epochs']} epochs in {m['seconds']:.0f} s on {m['device']}, torch {m['torch']}",
        "seed": str(config.run.seed),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    shown = "".join(f"\n![{name}]({file})\n" for name, file in pictures.items())
    sentences = {} if task is None else task.HOW_TO_READ
    how = "".join(f"\n{text}\n" for name, text in sentences.items() if name in pictures)
    again = shlex.join(["qna", "train", "--config", str(outcome.folder / "config.json")])
    return f"""# {as_markdown(f"{config.network.model} on {outcome.data.name}: {result}")}

| | |
|---|---|
{table}
{shown}{how}
The same run again: {as_code(again)}
"""


def _unreadable(count: int) -> str:
    return f"; {count:,} could not be read and were skipped (log.jsonl names them)" if count else ""
