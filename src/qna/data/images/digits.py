"""The handwritten digits that scikit-learn carries: 1,797 grey images of 8x8 pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from qna._core.errors import InvalidInput, require
from qna.data.images.labelled import ImageData, TensorImages, tensor_data

HELD_OUT = 360


def load_digits(folder: Path | None = None, *, download: bool = False) -> ImageData:
    """Return the digits, split once and for all: 1,437 to train on, 360 held out, all classes in both.

    Args:
        folder: must be None; the images come with scikit-learn.
        download: there is never anything to fetch.

    Raises:
        InvalidInput: if a folder is named; these images come with scikit-learn.
        MissingExtra: without scikit-learn.
    """
    if folder is not None:
        raise InvalidInput(f"digits come with scikit-learn, not from a folder, got data_dir={str(folder)!r}")
    datasets = require("sklearn.datasets", extra="train", purpose="the data set 'digits'")
    model_selection = require("sklearn.model_selection", extra="train", purpose="the data set 'digits'")
    bunch = datasets.load_digits()
    # grey levels are 0..16
    pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    train, held_out = model_selection.train_test_split(
        range(len(labels)), test_size=HELD_OUT, stratify=bunch.target, random_state=0
    )
    train, held_out = sorted(train), sorted(held_out)
    return tensor_data(
        "digits",
        tuple(map(str, bunch.target_names)),
        TensorImages(pixels[train], labels[train]),
        TensorImages(pixels[held_out], labels[held_out]),
        "scikit-learn's load_digits (UCI handwritten digits, 8x8 grey)",
    )
