"""A run's folder: never one that holds results already, and a log of one JSON object per line."""

from __future__ import annotations

import contextlib
import importlib
import json
from pathlib import Path
from typing import Any

from qna._core.errors import InvalidInput
from qna._core.files import write_text
from qna._core.typed_json import parse_json

CONFIG = "config.json"
LOG = "log.jsonl"
METRICS = "metrics.json"
EVENTS = "tensorboard"


def claim_folder(wanted: Path) -> Path:
    """Make a folder for a new run and return it: `wanted`, or the first free of wanted-2, wanted-3, ...

    An empty folder is free; one that holds anything is left alone.

    Raises:
        InvalidInput: if it cannot be made.
    """
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not any(folder.iterdir()):
                return folder
        except FileExistsError:
            pass  # a file of that name
        except OSError as error:
            raise InvalidInput(f"cannot make the folder {folder}: {error.strerror}") from None
        number += 1


class Journal:
    """The log of a run, a line per event, written as it happens; TensorBoard's curves beside it.

    Args:
        folder: of the run; lines are added to its log. None writes nothing, in all processes but the first.
        tensorboard: write event files too, if TensorBoard is installed.
    """

    def __init__(self, folder: Path | None, *, tensorboard: bool):
        self._file = None if folder is None else (folder / LOG).open("a", encoding="utf-8")
        self._board: Any = None
        # optional: the log has all of it
        if folder is not None and tensorboard:
            with contextlib.suppress(ImportError):
                boards = importlib.import_module("torch.utils.tensorboard")
                self._board = boards.SummaryWriter(folder / EVENTS)

    def write(self, event: str, **values: Any) -> None:
        """Add a line ``{"event": event, ...}``, and its numbers to the curves over "step"."""
        if self._file is not None:
            self._file.write(json.dumps({"event": event, **values}) + "\n")
            self._file.flush()
        if self._board is not None and "step" in values:
            for name, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{event}/{name}", value, values["step"])

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def cut_log(path: Path, step: int, epochs: int) -> list[dict[str, Any]]:
    """Leave in a log only what happened up to update `step`, and no line that was cut short by a crash.

    Args:
        path: of the log.
        step: updates that the checkpoint holds.
        epochs: complete epochs that it holds; the last update of one may be saved before its evaluation.

    Returns:
        What is left.
    """
    kept = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            event = parse_json(line, "a line")
            is_past = event["step"] <= step and not (event["event"] == "epoch" and event["epoch"] > epochs)
            told = [event["event"], event["image"] if event["event"] == "unreadable" else ""]
        except (ValueError, KeyError, TypeError):  # no line of ours
            continue
        if is_past and all(isinstance(text, str) for text in told):
            kept.append(event)
    write_text(path, "".join(json.dumps(event) + "\n" for event in kept))
    return kept
