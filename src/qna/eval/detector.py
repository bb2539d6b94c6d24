"""A trained detector, with what it takes to show it an image and to say what it found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qna.data import evaluation_batches
from qna.data.boxes import BoxData, BoxPreparation
from qna.eval.boxes import BoxScores, BoxTally
from qna.eval.classifier import NO_ANSWER
from qna.eval.dense import DenseNetwork
from qna.eval.judgement import UnusableAnswers

if TYPE_CHECKING:
    from qna.models.detectors import DetectedBoxes, Detector, Found


@dataclass(frozen=True)
class BoxFinder(DenseNetwork):
    """A detector that says which things an image shows, and where.

    Attributes:
        network: in evaluation mode.
        view: how it sees images.
        data: folder of the data set that it learned from.
        images_dir: where that has its images, if not in a usual place.
        drop_bad_boxes: whether boxes that no image can have were left out of it.
        architecture: names of detector and backbone.
    """

    network: Detector
    view: BoxPreparation
    data: str
    images_dir: Path | None
    drop_bad_boxes: bool
    architecture: str


@torch.no_grad()
def find_boxes(finder: BoxFinder, image: Any, device: torch.device | str = "cpu") -> DetectedBoxes:
    """What an RGB PIL image of any size shows, the surest first, in its pixels and on the CPU.

    Args:
        finder: its network is on `device`, in evaluation mode.
        image: one image, read alone: other images change nothing.
        device: where to compute.

    Raises:
        UnusableAnswers: if the network answers with NaN or infinity.
    """
    pixels, mask = finder.view.image(image)
    found = finder.network(pixels.to(device), mask.to(device))
    _require_numbers(found)
    (boxes,) = finder.network.detections(found, [(image.height, image.width)])
    return type(boxes)(*(value.cpu() for value in boxes))


@torch.no_grad()
def judge_boxes(
    finder: BoxFinder,
    data: BoxData,
    *,
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str = "cpu",
    told: Callable[[int], object] = lambda images: None,
) -> tuple[BoxScores, Sequence[str]]:
    """Scores on all held-out images, without the loss, and a line on each that could not be read.

    Args:
        finder: its network is moved to `device` and put in evaluation mode.
        data: that it fits.
        batch_size: images that are read together.
        workers: processes that read images.
        device: where to compute.
        told: called with the number of images after each batch.

    Raises:
        UnusableAnswers: if the network answers with NaN or infinity.
    """
    network = finder.network.to(device).eval()
    tally, skipped = BoxTally(len(data.classes)), list[str]()
    for batch in evaluation_batches(data.held_out, finder.view, batch_size, workers=workers):
        skipped += batch.skipped
        if len(batch.indices):
            found = network(batch.images.to(device), batch.mask.to(device))
            _require_numbers(found, f"{finder.name}: ")
            tally.add(network.detections(found, batch.sizes), None, batch)
        told(len(batch.indices) + len(batch.skipped))
    return tally.scores(), skipped


def _require_numbers(found: Found, who: str = "") -> None:
    if not (found.logits.isfinite().all() and found.boxes.isfinite().all()):
        raise UnusableAnswers(f"{who}{NO_ANSWER}")
