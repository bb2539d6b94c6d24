"""The tasks that a run can learn, a row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from qna._core.errors import InvalidInput, check_choice
from qna.train.config import TrainConfig
from qna.train.task import Task
from qna.train.tasks.classification import Classification
from qna.train.tasks.detection import Detection
from qna.train.tasks.language import Language
from qna.train.tasks.segmentation import Segmentation
from qna.train.tasks.volumes import SegmentedVolumes


@dataclass(frozen=True)
class TaskRow:
    """A task that can be chosen.

    Attributes:
        name: that it is chosen by.
        text: what is learned, in a line.
        build: makes it.
        options: the group of `TrainConfig` that belongs to this task alone; None where it needs none.
        declines: options of the other groups that mean nothing to it.
        unit: what its examples are called.
    """

    name: str
    text: str
    build: Callable[[], Task]
    options: str | None = None
    declines: tuple[str, ...] = ()
    unit: str = "images"


TASKS = {
    row.name: row
    for row in (
        TaskRow("classification", "which of several classes an image belongs to", Classification),
        TaskRow(
            "segmentation",
            "which of several classes each pixel of an image shows",
            Segmentation,
            options="segmentation",
            declines=("crop_pct", "data_dir", "download", "policy", "erase", "mixup", "cutmix"),
        ),
        TaskRow(
            "detection",
            "which things an image shows, each in a box",
            Detection,
            options="detection",
            declines=(
                *("crop_pct", "data_dir", "download"),
                *("rotate", "shift", "zoom", "policy", "erase", "mixup", "cutmix", "smoothing"),
            ),
        ),
        TaskRow(
            "language",
            "which token comes next in text, or in sequences that ask for what was read before",
            Language,
            options="language",
            declines=(
                *("data_dir", "download", "image_size", "crop_pct"),
                *("pretrained", "drop_path", "channels_last"),
                *("crop", "rotate", "shift", "zoom", "flip", "color"),
                *("policy", "erase", "mixup", "cutmix", "smoothing"),
            ),
            unit="sequences",
        ),
        TaskRow(
            "volumes",
            "which of several classes each voxel of a volume shows",
            SegmentedVolumes,
            options="volumes",
            declines=(
                *("data_dir", "download", "image_size", "crop_pct", "workers", "channels_last"),
                *("adapter", "adapter_args", "pretrained", "drop_path"),
                *("crop", "rotate", "shift", "zoom", "policy", "erase", "mixup", "cutmix"),
            ),
            unit="patches or volumes",
        ),
    )
}


def build_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        UnknownName: with the nearest names.
    """
    return TASKS[check_choice("task", name, TASKS)].build()


def check_options(config: TrainConfig) -> None:
    """Refuse what the task of `config` would ignore: an option of another task, or one that it declines.

    Raises:
        UnknownName: for a task that does not exist, with the nearest names.
        InvalidInput: the first option that was changed from its default for nothing.
    """
    row = TASKS[check_choice("task", config.run.task, TASKS)]
    owners = {other.options: other.name for other in TASKS.values() if other.options is not None}
    for part in fields(config):
        group = getattr(config, part.name)
        plain, owner = type(group)(), owners.get(part.name, row.name)
        for option in fields(group):
            value, default = getattr(group, option.name), getattr(plain, option.name)
            if value != default and (owner != row.name or option.name in row.declines):
                whose = f"it belongs to {owner}" if owner != row.name else f"leave it at {default}"
                raise InvalidInput(f"task {row.name} makes no use of {option.name}={value}: {whose}")


__all__ = [
    "TASKS",
    "TaskRow",
    "build_task",
    "check_options",
    "Classification",
    "Detection",
    "Language",
    "Segmentation",
    "SegmentedVolumes",
]
