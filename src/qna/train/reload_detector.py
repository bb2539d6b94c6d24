"""A detector brought back from a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, cast

from qna.eval import BoxFinder
from qna.train.checkpoint import load_tensors
from qna.train.config import TrainConfig
from qna.train.reload import made_of, told_in, weights_of
from qna.train.tasks.detection import build_detector, plain_view

if TYPE_CHECKING:
    from qna.models.detectors import Detector


@dataclass(frozen=True)
class LearnedBoxes:
    """What a run's weights say of it in their header.

    Attributes:
        config: of the run.
        classes: names of the labels.
        mean: per channel.
        std: per channel.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_detector(source: str, *, image_size: int | None = None) -> BoxFinder:
    """Bring a detector of a run of detection back, in evaluation mode.

    Args:
        source: the run's folder, or the model.safetensors in one.
        image_size: to how many pixels an image is brought; None for the run's own.

    Raises:
        InvalidInput: if there is no such run, its file is damaged, or the detector cannot read that size.
    """
    path = weights_of(source)
    tensors, about = load_tensors(path)
    seen = told_in(path, about, LearnedBoxes)
    config = seen.config
    if image_size is not None:
        config = replace(config, images=replace(config.images, image_size=image_size))
    make = partial(
        build_detector,
        config.network.architecture(),
        config.detection,
        seen.classes,
        config.images.image_size,
    )
    network = made_of(tensors, f"{path} has the weights of another network: it", make)
    return BoxFinder(
        name=source,
        network=cast("Detector", network.eval()),
        classes=seen.classes,
        view=plain_view(config, seen.mean, seen.std),
        data=config.images.data,
        images_dir=config.detection.images_dir,
        drop_bad_boxes=config.detection.drop_bad_boxes,
        architecture=f"{config.detection.detector} around {config.network.model}",
    )
