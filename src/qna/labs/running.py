"""Running a laboratory: a folder in which every finished part stays, whatever ends the run.

The folder holds config.json, rows.csv, and when all parts are done metrics.json and a picture. A part is done
when its rows are in rows.csv, which is written as a whole or not at all after each part.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qna._core.errors import InvalidInput
from qna._core.files import remove_leftovers, write_text
from qna._core.typed_json import read_json
from qna.bench.measure.machine import Stamp, keeping_to
from qna.bench.measure.rows import Row, append
from qna.labs.results import cpu_seconds, metrics_of, read_figures, row_of
from qna.labs.row import Figure, Lab, LabConfig, Metrics, Verdict

# parts done, all parts, and the one that begins
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class LabOutcome:
    """What a complete run left.

    Attributes:
        folder: where it is.
        rows: all figures.
        metrics: the same, for the verdict.
        verdict: on the claim.
    """

    folder: Path
    rows: list[Row]
    metrics: Metrics
    verdict: Verdict


def run_lab(
    lab: Lab, config: LabConfig, path: Path, progress: Progress = lambda done, parts, what: None
) -> LabOutcome:
    """Run a laboratory on one core, or go on where a run in this folder stopped.

    Args:
        lab: which.
        config: an instance of its configuration.
        path: the folder; new, empty, or of a run with the same configuration.
        progress: told before each part.

    Raises:
        InvalidInput: the folder holds something else, or the budget is spent; what is done stays done.
    """
    folder = PartsFolder(lab, config, path, progress)
    with keeping_to(1):
        metrics = lab.run(config, folder)
    verdict = lab.verdict(metrics)
    said = {"lab": lab.name, "verdict": verdict.word, "figures": verdict.figures, "metrics": metrics}
    write_text(path / "metrics.json", json.dumps(said, indent=2) + "\n")
    if lab.picture is not None:
        last = folder.rows[-1]
        note = f"{last.device}; torch {last.torch}; commit {last.commit}; {last.date[:10]}"
        lab.picture(path / "picture.png", metrics, note)
    return LabOutcome(path, folder.rows, metrics, verdict)


class PartsFolder:
    """The folder of a run; a `LabFolder`.

    Attributes:
        path: of the folder.
        rows: of all parts that are done.
    """

    def __init__(self, lab: Lab, config: Any, path: Path, progress: Progress):
        self.path = path
        self.rows: list[Row] = []
        self._lab, self._config, self._progress = lab, config, progress
        self._claim()

    def measured(self, parts: Mapping[str, Callable[[], list[Figure]]]) -> Metrics:
        """Do the parts that have no rows yet, in order, and return the figures of all."""
        done = {row.extra["part"] for row in self.rows}
        for number, (name, part) in enumerate(parts.items()):
            if name not in done:
                self._check_budget(number, len(parts))
                self._progress(number, len(parts), name)
                self._keep(name, part)
        self._progress(len(parts), len(parts), "done")
        return metrics_of(self.rows)

    def _keep(self, name: str, part: Callable[[], list[Figure]]) -> None:
        stamp, before = Stamp.now("cpu"), _cpu_seconds()
        figures = part()
        if not figures:
            raise InvalidInput(f"part {name!r} of lab {self._lab.name} gave no figure")
        extra = {
            "lab": self._lab.name,
            "part": name,
            "begun": self.rows[0].extra["begun"] if self.rows else stamp.date,
            "command": command(self._lab, self._config),
            "cpu_seconds": round(_cpu_seconds() - before, 1),
        }
        new = [row_of(figure, stamp, torch.get_num_threads(), extra) for figure in figures]
        append(self.path / "rows.csv", new)
        self.rows += new

    def _check_budget(self, done: int, parts: int) -> None:
        spent, minutes = cpu_seconds(self.rows) / 60, self._config.minutes
        if spent >= minutes:
            raise InvalidInput(
                f"the budget of {minutes:g} CPU minutes is spent after {done} of {parts} parts; go on with "
                f"--minutes {2 * minutes:g} --out {self.path}"
            )

    def _claim(self) -> None:
        """Take the folder, new or of a run that was told the same."""
        told = {
            "lab": self._lab.name,
            **json.loads(json.dumps(dataclasses.asdict(self._config), default=str)),
        }  # type: ignore[arg-type]
        config, kept = self.path / "config.json", self.path / "rows.csv"
        if config.exists():
            try:
                before = read_json(config)
            except InvalidInput as error:
                raise InvalidInput(
                    f"{config} is not a run's: {error}; name another folder with --out"
                ) from None
            if not isinstance(before, dict) or before.get("lab") is None:
                raise InvalidInput(
                    f"{self.path} holds no run of a laboratory; name another folder with --out"
                )
            # a budget may grow on the way
            other = [k for k in {**before, **told} if k != "minutes" and before.get(k) != told.get(k)]
            if other:
                words = ", ".join(f"{k} {before.get(k)} and not {told.get(k)}" for k in other)
                raise InvalidInput(f"{self.path} holds a run with {words}; name another folder with --out")
            self.rows = read_figures(kept) if kept.exists() else []
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise InvalidInput(f"{self.path} holds something that is no run; name another folder with --out")
        self.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path)
        write_text(config, json.dumps(told, indent=2) + "\n")


def command(lab: Lab, config: Any) -> str:
    """What a person types for this configuration: the options that differ from the defaults."""
    words = ["qna lab run", lab.name]
    plain = lab.config()
    for field in dataclasses.fields(config):
        value, option = getattr(config, field.name), field.name.replace("_", "-")
        if value == getattr(plain, field.name):
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *map(_word, value if isinstance(value, tuple) else (value,))]
    return " ".join(words)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])
