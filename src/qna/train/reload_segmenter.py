"""A network that segments brought back from a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from qna._core.errors import InvalidInput
from qna.eval import ImageView, Segmenter
from qna.train.checkpoint import load_tensors
from qna.train.config import TrainConfig
from qna.train.fitting import check_numbers
from qna.train.network import try_network
from qna.train.reload import made_of, told_in, weights_of
from qna.train.tasks.segmentation import build_segmenter


@dataclass(frozen=True)
class LearnedMasks:
    """What a run's weights say of it in their header.

    Attributes:
        config: of the run.
        classes: names of the logits.
        palette: their colours.
        mean: per channel.
        std: per channel.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        ImageView(self.config.images.image_size, self.mean, self.std)  # checks the numbers
        for colour in self.palette:
            if not all(0 <= part <= 255 for part in colour):
                raise InvalidInput(f"palette needs numbers from 0 to 255, got {colour}")


def load_segmenter(source: str, *, image_size: int | None = None) -> Segmenter:
    """Bring a network of a run of segmentation back, in evaluation mode.

    Args:
        source: the run's folder, or the model.safetensors in one.
        image_size: to how many pixels an image's shorter side is brought; None for the run's own.

    Raises:
        InvalidInput: if there is no such run, its file is damaged, or the network cannot read that size.
    """
    path = weights_of(source)
    tensors, about = load_tensors(path)
    seen = told_in(path, about, LearnedMasks)
    config, size = seen.config, image_size or seen.config.images.image_size
    options = config.network.architecture()
    make = partial(
        build_segmenter, options, config.segmentation, classes=len(seen.classes), channels=len(seen.mean)
    )
    check_numbers(tensors, path)
    network = made_of(tensors, f"{path} has the weights of another network: it", make)
    try_network(network, config.network.model, len(seen.mean), (size, size))
    return Segmenter(
        name=source,
        network=network.eval(),
        classes=seen.classes,
        palette=seen.palette,
        size=size,
        mean=seen.mean,
        std=seen.std,
        ignore=config.segmentation.ignore,
        data=config.images.data,
        architecture=config.network.model,
    )
