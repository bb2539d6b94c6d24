"""Two modalities of one thing: halves of an image, or an image of two garments and its caption."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.data.images.labelled import TensorImages
from qna.labs.classifying import scaled

HALVES, CAPTIONS = "halves", "captions"
TASKS = (HALVES, CAPTIONS)
CLASSES, BESIDE, ABOVE = 10, 0, 1
# a garment, how it stands to the other, and the other
WORDS, RELATIONS, LENGTH = CLASSES + 2, 2, 3
CAPTION_COUNT = CLASSES * RELATIONS * CLASSES


class Pairs(NamedTuple):
    """Examples of two modalities, row by row of the same thing.

    Attributes:
        a: images (B, 1, H, W).
        b: images (B, 1, H, W), or words (B, 3).
        names: (B,); what has the same name cannot be told apart.
    """

    a: Tensor
    b: Tensor
    names: Tensor


def draw(task: str, images: TensorImages, count: int, generator: torch.Generator) -> Pairs:
    """So many pairs; no two of a draw have a name in common while there are names left."""
    if task == HALVES:
        chosen = torch.randperm(len(images), generator=generator)[:count]
        pixels = scaled(images.pixels[chosen])
        half = pixels.shape[-1] // 2
        return Pairs(pixels[..., :half], pixels[..., half:], chosen)
    rounds = -(-count // CAPTION_COUNT)
    names = torch.cat([torch.randperm(CAPTION_COUNT, generator=generator) for _ in range(rounds)])[:count]
    words = words_of(names)
    first, second = (_of_class(images, words[:, place], generator) for place in (0, 2))
    return Pairs(_composed(first, second, words[:, 1] - CLASSES, generator), words, names)


def words_of(names: Tensor) -> Tensor:
    """The caption of each name, (B, 3): 200 captions, "bag above coat" for example."""
    first, rest = names // (RELATIONS * CLASSES), names % (RELATIONS * CLASSES)
    return torch.stack([first, CLASSES + rest // CLASSES, rest % CLASSES], 1)


def found_by(scores: Tensor, names_a: Tensor, names_b: Tensor) -> Mapping[str, float]:
    """In per cent, how often the nearest, or one of the nearest five, has the same name; both directions."""
    same = names_a[:, None] == names_b
    found = {}
    for metric, k in (("recall-1", 1), ("recall-5", 5)):
        hits = [
            of.gather(1, score.topk(min(k, score.shape[1]), 1).indices).any(1)
            for score, of in ((scores, same), (scores.mT, same.mT))
        ]
        found[metric] = 50 * float(sum(hit.double().mean() for hit in hits))
    return found


def _of_class(images: TensorImages, classes: Tensor, generator: torch.Generator) -> Tensor:
    """An image of each class, drawn, at half its size: (B, 1, H / 2, W / 2)."""
    at = torch.empty_like(classes)
    for label in classes.unique():
        those, wanted = (images.labels == label).nonzero()[:, 0], classes == label
        drawn = torch.randint(len(those), (int(wanted.sum()),), generator=generator)
        at[wanted] = those[drawn]
    return F.avg_pool2d(scaled(images.pixels[at]), 2)


def _composed(first: Tensor, second: Tensor, relation: Tensor, generator: torch.Generator) -> Tensor:
    """The first left of the second or above it, each moved at random along the other axis: (B, 1, H, W)."""
    half = first.shape[-1]
    scene = first.new_full((len(first), 1, 2 * half, 2 * half), -1.0)
    moved = torch.randint(half + 1, (len(first), 2), generator=generator).tolist()
    for i, (by, other) in enumerate(moved):
        if relation[i] == BESIDE:
            scene[i, :, by : by + half, :half], scene[i, :, other : other + half, half:] = first[i], second[i]
        else:
            scene[i, :, :half, by : by + half], scene[i, :, half:, other : other + half] = first[i], second[i]
    return scene
