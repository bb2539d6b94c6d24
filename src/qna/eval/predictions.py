"""What a classifier sees on the images in files, a batch at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from qna._core.errors import InvalidInput
from qna.data import FileImages, UnreadableImage
from qna.data.images.folder import PathReader
from qna.data.images.search import SUFFIXES, find_images_in
from qna.eval.classifier import NO_ANSWER, Classifier, usable

_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Guess:
    """A class and how sure the network is of it.

    Attributes:
        index: number of the class.
        label: its name.
        probability: by the softmax of the logits.
    """

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What was seen in one file.

    Attributes:
        path: of the file, as it was found.
        guesses: most probable class first; none if there is an error.
        error: why the file could not be read, or the network's answer not be used.
    """

    path: str
    guesses: tuple[Guess, ...] = ()
    error: str | None = None


def find_images(places: Iterable[str]) -> Iterator[Prediction]:
    """A prediction without guesses for every image in `places`, in order.

    Args:
        places: files, taken whatever their name, and folders, searched with the folders inside for names of
            images, in alphabetical order; hidden ones are left out, links are followed. A folder without any,
            and one that cannot be searched, give an entry that says so.
    """
    for place in places:
        if not os.path.isdir(place):
            yield Prediction(place)
            continue
        found, closed = False, list[OSError]()
        for path in find_images_in(place, closed.append):
            found = True
            yield Prediction(path)
        for error in closed:
            yield Prediction(error.filename, error=f"the folder cannot be searched: {error.strerror}")
        if not found and not closed:
            yield Prediction(place, error=f"a folder without images ({', '.join(sorted(SUFFIXES))})")


@torch.no_grad()
def predict(
    classifier: Classifier,
    found: Iterable[Prediction],
    *,
    top_k: int = 5,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> Iterator[Prediction]:
    """Fill in what `find_images` gives, in the same order; never more than a batch is in memory.

    Args:
        classifier: its network is moved to `device` and put in evaluation mode.
        found: entries that have an error already are passed on.
        top_k: guesses per image, at most one per class.
        batch_size: images per forward pass.
        device: where to compute.

    Raises:
        InvalidInput: if the network reads neither grey nor RGB images, or a count is not positive.
    """
    if classifier.view.channels not in _MODES:
        raise InvalidInput(
            f"{classifier.name} reads {classifier.view.channels} channels, and files give 1 or 3"
        )
    if top_k < 1 or batch_size < 1:
        raise InvalidInput(f"top_k and batch_size must be at least 1, got {top_k} and {batch_size}")
    classifier.network.to(device).eval()
    entries = iter(found)
    while batch := list(islice(entries, batch_size)):
        yield from _predict_batch(classifier, batch, top_k, device)


@dataclass(frozen=True)
class ModedImages:
    """Images of files in the mode that a network reads.

    Attributes:
        files: opened as RGB.
        mode: Pillow's name of the result's.
    """

    files: FileImages
    mode: str

    def __len__(self) -> int:
        return len(self.files)

    def open(self, index: int) -> tuple[Any, int]:
        """A PIL image and label 0."""
        image, label = self.files.open(index)
        return image.convert(self.mode), label


def open_files(paths: list[str], channels: int) -> ModedImages:
    """The images in `paths`, with 1 channel (grey) or 3 (RGB)."""
    files = FileImages(paths, [0] * len(paths), PathReader(tuple(map(Path, paths))))
    return ModedImages(files, _MODES[channels])


def open_file(path: str) -> Any:
    """The RGB PIL image in a file.

    Raises:
        UnreadableImage: with the cause.
    """
    try:
        return FileImages([path], [0], PathReader((Path(path),))).open(0)[0]
    except UnreadableImage as error:
        raise UnreadableImage(str(error).removeprefix(f"{path}: ")) from None


def _predict_batch(
    classifier: Classifier, batch: list[Prediction], top_k: int, device: torch.device | str
) -> list[Prediction]:
    done = {place: entry for place, entry in enumerate(batch) if entry.error is not None}
    asked = [place for place in range(len(batch)) if place not in done]
    images = open_files([batch[place].path for place in asked], classifier.view.channels)
    prepared = classifier.view.pixels(images)(images, range(len(images)))
    read = prepared.indices.tolist()
    # images that cannot be read are told in the order in which they were asked for
    unread = [place for place in range(len(asked)) if place not in set(read)]
    for place, line in zip(unread, prepared.skipped, strict=True):
        path = batch[asked[place]].path
        done[asked[place]] = Prediction(path, error=line.removeprefix(f"{path}: "))
    if read:
        logits = classifier.network(classifier.view.standardise(prepared.images).to(device))
        probabilities = logits.float().cpu().softmax(1)
        best = probabilities.topk(min(top_k, probabilities.shape[1]), dim=1)
        answered = usable(logits).tolist()
        for row, place in enumerate(read):
            path = batch[asked[place]].path
            if not answered[row]:
                done[asked[place]] = Prediction(path, error=NO_ANSWER)
                continue
            pairs = zip(best.indices[row].tolist(), best.values[row].tolist(), strict=True)
            done[asked[place]] = Prediction(path, tuple(Guess(i, classifier.classes[i], p) for i, p in pairs))
    return [done[place] for place in range(len(batch))]
