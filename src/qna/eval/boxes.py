"""Mean average precision of boxes, each image counted once whatever the batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from qna._core.errors import require
from qna._core.third_party import import_vision
from qna.data.boxes import BoxBatch

if TYPE_CHECKING:
    from qna.models.detectors import DetectedBoxes


@dataclass(frozen=True)
class BoxScores:
    """How well a detector finds boxes, as COCO counts; None where no box to be found has that size.

    Attributes:
        images: how many were judged.
        loss: mean of the detector's own loss over the images; None where it was not asked for.
        map: average precision: mean over classes and over least overlaps (IoU) from 0.5 to 0.95.
        map_50: at an overlap of 0.5.
        map_75: at an overlap of 0.75.
        map_small: of boxes below 32 x 32 pixels, in the image as it is stored.
        map_medium: of boxes up to 96 x 96.
        map_large: of larger boxes.
        recall: the part of all boxes that is found with 100 answers per image, mean as for `map`.
        of_class: `map` of each class; None for one without a box.
    """

    images: int
    loss: float | None
    map: float
    map_50: float
    map_75: float
    map_small: float | None
    map_medium: float | None
    map_large: float | None
    recall: float
    of_class: tuple[float | None, ...]


def require_metrics() -> Any:
    """torchmetrics' module that counts, whose packages are all there.

    Raises:
        MissingExtra: if one is not.
    """
    import_vision("torchvision.ops", extra="dense", purpose="mean average precision")
    require("pycocotools.mask", extra="dense", purpose="mean average precision")
    return require("torchmetrics.detection", extra="dense", purpose="mean average precision")


class BoxTally:
    """Collects answers and truth; torchmetrics counts them when all are there.

    Args:
        classes: number of classes.

    Raises:
        MissingExtra: a package that counts is missing.
    """

    def __init__(self, classes: int):
        self._metrics: Any = require_metrics()
        self.classes = classes
        # (position in the data set, share of the loss, answer, truth)
        self.rows: list[tuple[int, float | None, tuple[Tensor, ...], tuple[Tensor, ...]]] = []

    def add(self, answers: Sequence[DetectedBoxes], loss: float | None, batch: BoxBatch) -> None:
        """Count a batch.

        Args:
            answers: of each image, in its stored pixels.
            loss: mean over the images, or None for all batches.
            batch: what is there.
        """
        for index, answer, truth in zip(batch.indices.tolist(), answers, batch.truth, strict=True):
            self.rows.append((index, loss, tuple(value.cpu() for value in answer), tuple(truth)))

    def reduce(self, summed: Callable[[Tensor], Tensor], gathered: Callable[[list], list]) -> None:
        """Take in what other processes counted."""
        self.rows = gathered(self.rows)

    def scores(self) -> BoxScores:
        """Of everything counted; the order in which images came changes nothing."""
        rows = sorted(self.rows, key=lambda row: row[0])
        losses = [row[1] for row in rows]
        if not rows:  # no image could be read
            return BoxScores(0, 0.0, 0.0, 0.0, 0.0, None, None, None, 0.0, (None,) * self.classes)
        # every process has all rows by now
        counted = self._metrics.MeanAveragePrecision(class_metrics=True, sync_on_compute=False)
        counted.warn_on_many_detections = False  # COCO counts the 100 surest
        for _, _, (scores, labels, corners), (truth, own, crowd) in rows:
            answer = {"scores": scores, "labels": labels, "boxes": corners}
            counted.update([answer], [{"labels": own, "boxes": truth, "iscrowd": crowd.long()}])
        found = {name: value.tolist() for name, value in counted.compute().items()}
        of_class: list[float | None] = [None] * self.classes
        labels, precisions = (
            value if isinstance(value, list) else [value]
            for value in (found["classes"], found["map_per_class"])
        )
        for label, precision in zip(labels, precisions, strict=True):
            of_class[label] = _seen(precision)
        overall = {name: max(0.0, found[name]) for name in ("map", "map_50", "map_75")}
        return BoxScores(
            images=len(rows),
            loss=None if None in losses else sum(losses) / len(rows),  # type: ignore[arg-type]
            map_small=_seen(found["map_small"]),
            map_medium=_seen(found["map_medium"]),
            map_large=_seen(found["map_large"]),
            recall=max(0.0, found["mar_100"]),
            of_class=tuple(of_class),
            **overall,
        )


def _seen(value: float) -> float | None:
    """None for the -1 that stands where there is nothing to find."""
    return None if value < 0 else value
