"""What a detector finds on the images in files, as rows of plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from qna.data import UnreadableImage
from qna.eval.detector import BoxFinder, find_boxes
from qna.eval.judgement import UnusableAnswers
from qna.eval.predictions import open_file


@dataclass(frozen=True)
class FoundBox:
    """A thing that was found.

    Attributes:
        label: name of its class.
        score: how sure the detector is of it, in [0, 1].
        box: left, top, right, bottom, in pixels of the image.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class BoxPrediction:
    """What was found on one image.

    Attributes:
        path: of the file, as it was found.
        name: of the picture that is drawn of it, relative to a folder of them.
        width: of the image, in pixels; 0 if it was not read.
        height: likewise.
        boxes: the surest first.
        error: why the file could not be read, or the detector's answer not be used.
    """

    path: str
    name: str = ""
    width: int = 0
    height: int = 0
    boxes: tuple[FoundBox, ...] = ()
    error: str | None = None


def predict_boxes(
    finder: BoxFinder,
    found: Iterable[BoxPrediction],
    *,
    least_score: float = 0.5,
    device: torch.device | str = "cpu",
    told: Callable[[BoxPrediction, Any], object] = lambda prediction, image: None,
) -> Iterator[BoxPrediction]:
    """Fill in entries in their order, one image in memory at a time.

    Args:
        finder: its network is moved to `device` and put in evaluation mode.
        found: entries that have an error already are passed on.
        least_score: of boxes that are told.
        device: where to compute.
        told: called with each answer and its image.
    """
    finder.network.to(device).eval()
    for entry in found:
        if entry.error is not None:
            yield entry
            continue
        try:
            image = open_file(entry.path)
            answer = find_boxes(finder, image, device)
        except (UnreadableImage, UnusableAnswers) as error:
            yield replace(entry, error=str(error))
            continue
        boxes = tuple(
            FoundBox(finder.classes[label], score, tuple(box))
            for score, label, box in zip(*(value.tolist() for value in answer), strict=True)
            if score >= least_score
        )
        prediction = replace(entry, width=image.width, height=image.height, boxes=boxes)
        told(prediction, image)
        yield prediction
