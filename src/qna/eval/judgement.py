"""What is measured of a trained classifier on a data set: scores, calibration, robustness, speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.data import ImageData, evaluation_batches
from qna.eval.calibration import Calibration, ConfidenceBin
from qna.eval.classifier import Classifier, usable
from qna.eval.corruptions import corruption
from qna.eval.scores import Scores, Tally


@dataclass(frozen=True)
class Condition:
    """What was done to the images before they were shown.

    Attributes:
        corruption: a name in `CORRUPTIONS`, or "none".
        severity: 1 to 5; 0 for none.
    """

    corruption: str = "none"
    severity: int = 0


CLEAN = Condition()


class UnusableAnswers(InvalidInput):
    """A network answers images with something that is not a number; the text says how many of which batch."""


@dataclass(frozen=True)
class Result:
    """What a classifier did under one condition.

    Attributes:
        scores: accuracy, loss and confusion.
        calibration_error: expected calibration error, in [0, 1].
        bins: confidence against accuracy.
    """

    scores: Scores
    calibration_error: float
    bins: tuple[ConfidenceBin, ...]


@dataclass(frozen=True)
class Speed:
    """How fast a network answers.

    Attributes:
        images_per_second: images of a batch over the median time of its forward pass.
        batch: images per forward pass.
        passes: timed.
        threads: that torch computes with on a CPU.
        device: where.
    """

    images_per_second: float
    batch: int
    passes: int
    threads: int
    device: str


@dataclass(frozen=True)
class Failure:
    """Why there is no judgement of a classifier.

    Attributes:
        name: of the classifier.
        error: the cause.
    """

    name: str
    error: str


@dataclass(frozen=True)
class Judgement:
    """What was found of one classifier.

    Attributes:
        classifier: who was judged.
        data: name of the data set.
        classes: of the data set.
        results: by condition, `CLEAN` first.
        unreadable: a line on each image that could not be read; it counts nowhere.
        speed: of one batch.
    """

    classifier: Classifier
    data: str
    classes: tuple[str, ...]
    results: dict[Condition, Result]
    unreadable: tuple[str, ...]
    speed: Speed

    @property
    def clean(self) -> Result:
        """The result on the images as they are."""
        return self.results[CLEAN]

    @property
    def corrupted_top1(self) -> float | None:
        """Mean top-1 accuracy over all corruptions and severities that were tried; None if none was."""
        found = [r.scores.top1 for c, r in self.results.items() if c != CLEAN]
        return statistics.fmean(found) if found else None


def conditions(corruptions: Sequence[str], severities: Sequence[int]) -> tuple[Condition, ...]:
    """The images as they are, then each corruption at each severity."""
    return (CLEAN, *(Condition(corruption(c).name, s) for c in corruptions for s in severities))


@torch.no_grad()
def judge(
    classifier: Classifier,
    data: ImageData,
    *,
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = (1, 3, 5),
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device | str = "cpu",
    told: Callable[[int], None] = lambda images: None,
) -> Judgement:
    """Judge a classifier on the held-out images of `data`, each counted once under every condition.

    Args:
        classifier: its network is moved to `device` and put in evaluation mode.
        data: its classes must be the classifier's.
        corruptions: names in `CORRUPTIONS`.
        severities: of them, 1 to 5.
        batch_size: images per forward pass.
        workers: processes that read images; 0 reads them here.
        device: where to compute.
        told: called with the number of images after each batch.

    Raises:
        InvalidInput: if its channels or classes are not those of `data`, or no image can be read.
        UnusableAnswers: as soon as an answer is not a number.
        UnknownName: for a corruption that does not exist, with the nearest names.
    """
    classifier.require_fit(data)
    network = classifier.network.to(device).eval()
    tallies = {
        condition: (Tally(len(data.classes)), Calibration())
        for condition in conditions(corruptions, severities)
    }
    unreadable: list[str] = []
    largest: torch.Tensor | None = None
    view = classifier.view
    for batch in evaluation_batches(data.held_out, view.pixels(data.held_out), batch_size, workers=workers):
        unreadable += batch.skipped
        told(len(batch.labels) + len(batch.skipped))
        if not len(batch.labels):
            continue
        for condition, (tally, calibration) in tallies.items():
            pixels = batch.images
            if condition != CLEAN:
                damage = corruption(condition.corruption)
                pixels = damage(pixels, condition.severity, batch.indices.tolist())
            images = view.standardise(pixels).to(device)
            logits = network(images).float().cpu()
            _require_answers(classifier.name, condition, logits)
            tally.add(logits, batch.labels)
            calibration.add(logits, batch.labels)
            if largest is None or len(images) > len(largest):
                largest = images
    if largest is None:
        raise InvalidInput(f"none of the {len(data.held_out)} images of {data.name} can be read")
    results = {
        condition: Result(tally.scores(), calibration.error, calibration.bins())
        for condition, (tally, calibration) in tallies.items()
    }
    speed = measure_speed(network, largest)
    return Judgement(classifier, data.name, data.classes, results, tuple(unreadable), speed)


def _require_answers(name: str, condition: Condition, logits: torch.Tensor) -> None:
    wrong = int((~usable(logits)).sum())
    if wrong:
        how = "" if condition == CLEAN else f" under {condition.corruption}, severity {condition.severity}"
        raise UnusableAnswers(
            f"{name} answers {wrong:,} of a batch of {len(logits):,} images{how} with NaN or infinity"
        )


@torch.no_grad()
def measure_speed(network: nn.Module, images: torch.Tensor, *, seconds: float = 0.5) -> Speed:
    """Time forward passes over one batch that is already on its device.

    Args:
        network: in evaluation mode.
        images: (B, C, H, W).
        seconds: passes are repeated for so long, five to fifty of them, after one to warm up.
    """
    wait: Callable[[], object] = {
        "cuda": torch.cuda.synchronize,
        "mps": torch.mps.synchronize,
    }.get(images.device.type, lambda: None)
    network(images)
    wait()
    times: list[float] = []
    while len(times) < 5 or (len(times) < 50 and sum(times) < seconds):
        begun = time.perf_counter()
        network(images)
        wait()
        times.append(time.perf_counter() - begun)
    rate = len(images) / statistics.median(times)
    return Speed(rate, len(images), len(times), torch.get_num_threads(), str(images.device))
