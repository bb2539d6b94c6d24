"""Detection of objects in boxes: the detector's own loss on matched boxes, and mean average precision."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from qna._core.errors import InvalidInput, check_choice
from qna.data import TrainingOrder, evaluation_batches, training_batches
from qna.data.boxes import BoxBatch, BoxData, BoxPreparation, BoxVariation, load_coco
from qna.eval.boxes import BoxScores, BoxTally, require_metrics
from qna.train.config import DetectionOptions, NetworkOptions, TrainConfig, named_values
from qna.train.network import common_arguments, prepare_network, refuse_adapter, try_network
from qna.train.task import Headline

if TYPE_CHECKING:
    from qna.models.detectors import Detector, DetectorRow, Found

CHANNELS = 3


class Detection:
    """Says which things an image shows, and draws a box around each."""

    headline = Headline("map", ".3f")
    config: TrainConfig
    classes: tuple[str, ...]

    def load(self, config: TrainConfig) -> BoxData:
        """The images and boxes that the configuration names."""
        told, row = config.detection, _row(config.detection)
        require_metrics()  # now, not when an epoch is over
        if not Path(config.images.data).is_dir():
            raise InvalidInput(
                "detection learns from a folder with annotations in COCO's format, and "
                f"{config.images.data!r} is no folder: name one with --data"
            )
        data = load_coco(Path(config.images.data), told.images_dir, drop_bad_boxes=told.drop_bad_boxes)
        self.config, self.row, self.classes = config, row, data.classes
        return data

    def build_network(self, options: NetworkOptions, data: BoxData) -> nn.Module:
        """The detector around the backbone that is named."""
        return build_detector(options, self.config.detection, data.classes, self.config.images.image_size)

    def fingerprint(self, data: BoxData) -> dict[str, Any]:
        """Classes, and number and digest of the images of both parts."""
        facts: dict[str, Any] = {"classes": list(data.classes)}
        for name, part in (("training images", data.train), ("held-out images", data.held_out)):
            facts |= {name: len(part), f"order or contents of the {name}": part.digest}
        return facts

    def about(self, data: BoxData) -> dict[str, Any]:
        """What it takes to read an image and to name what is found."""
        config = json.loads(self.config.to_json())
        return {"config": config, "classes": data.classes, "mean": data.mean, "std": data.std}

    def training_batches(
        self, data: BoxData, order: TrainingOrder, epoch: int, start: int
    ) -> Iterator[BoxBatch]:
        """Images with boxes as they are varied."""
        a = self.config.augment
        view = self._view(data, BoxVariation(a.crop, a.flip, a.color))
        return training_batches(
            data.train, view, order, epoch=epoch, start=start, workers=self.config.images.workers
        )

    def held_out_batches(self, data: BoxData, rank: int, world: int) -> Iterator[BoxBatch]:
        """Whole images."""
        size, workers = self.config.optim.batch_size, self.config.images.workers
        return evaluation_batches(
            data.held_out, self._view(data, None), size, rank=rank, world=world, workers=workers
        )

    def _view(self, data: BoxData, variation: BoxVariation | None) -> BoxPreparation:
        return plain_view(self.config, data.mean, data.std, variation)

    def examples(self, batch: BoxBatch) -> int:
        """Images that could be read."""
        return len(batch.indices)

    def unreadable(self, batch: BoxBatch) -> list[str]:
        """A line on each image that could not."""
        return batch.skipped

    def varied(self, batch: BoxBatch, seed: int) -> BoxBatch:
        """As it is: images vary one by one, when they are read."""
        return batch

    def inputs(self, batch: BoxBatch) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
        """Images, where in the batch they are, and what is to be found, which the loss is made of."""
        return batch.images, batch.mask, batch.targets

    def loss(self, output: Found, batch: BoxBatch, seed: int) -> Tensor:
        """The detector's own."""
        assert output.loss is not None
        return output.loss

    def tally(self, device: Any) -> DetectionTally:
        """Collects boxes."""
        return DetectionTally(self.row, len(self.classes))

    def report(self, scores: BoxScores) -> dict[str, Any]:
        """All of COCO's figures."""
        figures = {name: value for name, value in vars(scores).items() if name not in ("images", "of_class")}
        of_class = dict(zip(self.classes, scores.of_class, strict=True))
        return {"held_out": scores.images, **figures, "map_of_class": of_class, "classes": self.classes}


class DetectionTally:
    """Counts what a detector finds.

    Args:
        row: of the detector.
        classes: number of classes.
    """

    def __init__(self, row: DetectorRow, classes: int):
        self.row, self.counted = row, BoxTally(classes)

    def add(self, output: Found, batch: BoxBatch) -> None:
        """Count a batch."""
        from qna.models.detectors import detections

        assert output.loss is not None
        self.counted.add(detections(output, batch.sizes, self.row.score), float(output.loss), batch)

    def reduce(self, summed: Callable[[Tensor], Tensor], gathered: Callable[[list], list]) -> None:
        """Gather from all processes."""
        self.counted.reduce(summed, gathered)

    def scores(self) -> BoxScores:
        """Of everything counted."""
        return self.counted.scores()


def _row(told: DetectionOptions) -> DetectorRow:
    # transformers takes its time to import, and other tasks do without
    from qna.models.detectors import DETECTORS

    return DETECTORS[check_choice("detector", told.detector, DETECTORS)]


def build_detector(
    options: NetworkOptions, told: DetectionOptions, classes: tuple[str, ...], image_size: int
) -> Detector:
    """Return the detector around the backbone `options.model`.

    Raises:
        UnknownName: for a model, detector or argument that does not exist, with the nearest names.
        InvalidInput: if one of them refuses the options, or the weights are of another network.
    """
    from qna.models.detectors import create_detector

    row = _row(told)
    refuse_adapter(options, "detection")
    own: dict[str, Any] = common_arguments(options)
    if options.pretrained:
        own["pretrained"] = True
    network = create_detector(
        told.detector,
        options.model,
        classes=classes,
        channels=CHANNELS,
        backbone_arguments=own,
        **named_values(told.detector_kwargs, "detector_kwargs"),
    )
    if row.squares:
        _check_square(told.detector, network.model.config, image_size)
    prepare_network(network, options)
    try_network(network, options.model, CHANNELS, (image_size, image_size))
    return network


def _check_square(detector: str, config: Any, size: int) -> None:
    """Refuse a side that the maps of a pyramid do not divide, and more queries than they have positions."""
    coarsest = max(config.feat_strides)
    if size % coarsest:
        raise InvalidInput(
            f"{detector} reads squares of a multiple of {coarsest} pixels around this backbone, got "
            f"image_size={size}; try {max(1, round(size / coarsest)) * coarsest}"
        )
    positions = sum((size // stride) ** 2 for stride in config.feat_strides)
    if config.num_queries > positions:
        raise InvalidInput(
            f"{detector} takes its {config.num_queries} queries from the positions of its maps, which are "
            f"{positions} at image_size={size}; ask for fewer with detector_kwargs num_queries={positions}"
        )


def plain_view(
    config: TrainConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    variation: BoxVariation | None = None,
) -> BoxPreparation:
    """How images are prepared, to be judged unless `variation` says how they vary."""
    return BoxPreparation(config.images.image_size, _row(config.detection).squares, mean, std, variation)
