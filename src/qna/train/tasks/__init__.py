"""The tasks that a run can learn, a row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qna._core.errors import check_choice
from qna.train.task import Task
from qna.train.tasks.classification import Classification


@dataclass(frozen=True)
class TaskRow:
    """A task that can be chosen.

    Attributes:
        name: that it is chosen by.
        text: what is learned, in a line.
        build: makes it.
    """

    name: str
    text: str
    build: Callable[[], Task]


TASKS = {
    row.name: row
    for row in (TaskRow("classification", "which of several classes an image belongs to", Classification),)
}


def build_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        UnknownName: with the nearest names.
    """
    return TASKS[check_choice("task", name, TASKS)].build()


__all__ = ["TASKS", "TaskRow", "build_task", "Classification"]
