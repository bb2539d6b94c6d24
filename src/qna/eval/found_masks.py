"""What a network that segments sees on the images in files: a mask in a file for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from qna.data import UnreadableImage
from qna.eval.judgement import UnusableAnswers
from qna.eval.predictions import open_file
from qna.eval.segmenter import Segmenter, segment


@dataclass(frozen=True)
class MaskPrediction:
    """What was seen on one image.

    Attributes:
        path: of the file, as it was found.
        name: of its mask, relative to the folder of masks.
        error: why the file could not be read, or the network's answer not be used.
    """

    path: str
    name: str = ""
    error: str | None = None


def predict_masks(
    segmenter: Segmenter,
    found: Iterable[MaskPrediction],
    told: Callable[[MaskPrediction, Any, Any], object],
    *,
    device: torch.device | str = "cpu",
) -> Iterator[MaskPrediction]:
    """Answer entries in their order, one image in memory at a time.

    Args:
        segmenter: its network is moved to `device` and put in evaluation mode.
        found: entries that have an error already are passed on.
        told: called with each answer, its image and the class of every pixel, before it is given.
        device: where to compute.
    """
    segmenter.network.to(device).eval()
    for entry in found:
        if entry.error is None:
            try:
                image = open_file(entry.path)
                classes = segment(segmenter, image, device)
            except (UnreadableImage, UnusableAnswers) as error:
                yield replace(entry, error=str(error))
                continue
            told(entry, image, classes)
        yield entry
