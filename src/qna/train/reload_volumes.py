"""A network of volumes brought back from a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

from qna._core import checks
from qna._core.errors import InvalidInput
from qna.eval.volumes import VolumeSegmenter
from qna.models.volumes import SlidingWindows
from qna.train.checkpoint import load_tensors
from qna.train.config import TrainConfig
from qna.train.fitting import check_numbers
from qna.train.reload import made_of, told_in, weights_of
from qna.train.tasks.volumes import build_volume_network


@dataclass(frozen=True)
class LearnedVolumes:
    """What a run's weights say of it in their header.

    Attributes:
        config: of the run.
        classes: names of the logits.
        channels: of a volume.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    channels: int

    def __post_init__(self):
        checks.positive("the header", channels=self.channels)
        if not self.classes:
            raise InvalidInput("the header names no classes")


def load_volume_segmenter(source: str) -> VolumeSegmenter:
    """Bring a network of a run of volumes back, in evaluation mode.

    Args:
        source: the run's folder, or the model.safetensors in one.

    Raises:
        InvalidInput: if there is no such run, or its file is damaged.
    """
    path = weights_of(source)
    tensors, about = load_tensors(path)
    seen = told_in(path, about, LearnedVolumes)
    make = partial(
        build_volume_network,
        seen.config.network.architecture(),
        seen.config.volumes,
        classes=len(seen.classes),
        channels=seen.channels,
    )
    check_numbers(tensors, path)
    network = made_of(tensors, f"{path} has the weights of another network: it", make)
    return VolumeSegmenter(
        name=source,
        network=cast(SlidingWindows, network.eval()),
        classes=seen.classes,
        channels=seen.channels,
        config=seen.config,
    )
