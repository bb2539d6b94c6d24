"""A trained network that gives pixels their classes, with what it takes to show it an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.data import evaluation_batches
from qna.data.masks import MaskData, MaskPreparation, framed
from qna.eval.classifier import NO_ANSWER
from qna.eval.dense import DenseNetwork
from qna.eval.judgement import UnusableAnswers
from qna.eval.regions import RegionScores, RegionTally


@dataclass(frozen=True)
class Segmenter(DenseNetwork):
    """A network that says of every pixel what it shows.

    Attributes:
        network: (B, C, H, W) -> logits (B, classes, H, W), in evaluation mode.
        palette: colours of the classes.
        size: to how many pixels an image's shorter side is brought for the network.
        mean: per channel, of images in [0, 1].
        std: per channel, likewise.
        ignore: number of pixels that count nowhere, in the masks that it learned from.
        data: name of the data set that it learned from.
        architecture: name of the network.
    """

    palette: tuple[tuple[int, int, int], ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ignore: int
    data: str
    architecture: str


def full_size(logits: Tensor, height: int, width: int) -> Tensor:
    """Logits (B, classes, H', W') brought bilinearly to (B, classes, height, width)."""
    if logits.shape[2:] == (height, width):
        return logits
    return F.interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)


@torch.no_grad()
def segment(segmenter: Segmenter, image: Any, device: torch.device | str = "cpu") -> Any:
    """The class of every pixel of an RGB PIL image of any size: uint8 (H, W), an array.

    Raises:
        UnusableAnswers: if the network answers with NaN or infinity.
    """
    x = framed(image, segmenter.size, segmenter.mean, segmenter.std)[None].to(device)
    logits = segmenter.network(x)
    if not logits.isfinite().all():
        raise UnusableAnswers(NO_ANSWER)
    return full_size(logits, image.height, image.width).argmax(1)[0].byte().cpu().numpy()


@torch.no_grad()
def judge_regions(
    segmenter: Segmenter,
    data: MaskData,
    *,
    workers: int = 0,
    device: torch.device | str = "cpu",
    told: Callable[[int], object] = lambda images: None,
) -> tuple[RegionScores, Sequence[str]]:
    """Scores on all held-out images, each shown whole, and a line on each that could not be read.

    Args:
        segmenter: its network is moved to `device` and put in evaluation mode.
        data: that it fits.
        workers: processes that read images.
        device: where to compute.
        told: called with the number of images after each batch.

    Raises:
        UnusableAnswers: if the network answers with NaN or infinity.
    """
    network = segmenter.network.to(device).eval()
    tally, skipped = RegionTally(len(data.classes), data.ignore, device), list[str]()
    view = MaskPreparation(segmenter.size, segmenter.mean, segmenter.std, data.ignore)
    for batch in evaluation_batches(data.held_out, view, 1, workers=workers):
        skipped += batch.skipped
        if len(batch.masks):
            logits = network(batch.images.to(device))
            if not logits.isfinite().all():
                raise UnusableAnswers(f"{segmenter.name}: {NO_ANSWER}")
            tally.add(full_size(logits, *batch.masks.shape[1:]), batch.masks.to(device))
        told(1)
    return tally.scores(), skipped
