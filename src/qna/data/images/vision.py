"""torchvision, timm and datasets, as far as data sets and photographs need them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from qna._core.errors import InvalidInput
from qna._core.third_party import import_vision


def torchvision_datasets(purpose: str) -> Any:
    """The module torchvision.datasets."""
    return import_vision("torchvision.datasets", extra="models", purpose=purpose)


def torchvision_download(name: str, folder: Path) -> None:
    """Let torchvision fetch the data set of class `name` to `folder`.

    Raises:
        InvalidInput: if it cannot, with the cause.
    """
    try:
        getattr(torchvision_datasets(name), name)(folder, download=True)
    except (OSError, RuntimeError) as error:  # no network, no room, or a checksum that differs
        raise InvalidInput(f"{name} could not be downloaded to {folder}: {error}") from None


def photo_transforms() -> ModuleType:
    """The module torchvision.transforms."""
    return import_vision("torchvision.transforms", extra="models", purpose="preparing photographs")


def joint_transforms() -> Any:
    """The module torchvision.transforms.v2, which moves an image and what belongs to it together."""
    return import_vision("torchvision.transforms.v2", extra="models", purpose="preparing images with masks")


def typed_tensors() -> Any:
    """The module torchvision.tv_tensors, whose tensors tell `joint_transforms` what they hold."""
    return import_vision("torchvision.tv_tensors", extra="models", purpose="preparing images with masks")


def timm_readers() -> Any:
    """The module timm.data.readers."""
    return import_vision("timm.data.readers", extra="models", purpose="reading this data set")


def augmentation_policy(text: str, mean: tuple[float, ...]) -> Any:
    """timm's RandAugment, AugMix or AutoAugment for PIL images, from a text like "rand-m9-mstd0.5".

    Raises:
        InvalidInput: if timm does not know it.
    """
    policies = import_vision("timm.data.auto_augment", extra="models", purpose="the augmentation policy")
    families = {
        "rand": policies.rand_augment_transform,
        "augmix": policies.augment_and_mix_transform,
        "original": policies.auto_augment_transform,
        "v0": policies.auto_augment_transform,
    }
    family = text.split("-", maxsplit=1)[0].rstrip("r")
    # what comes into view takes the mean colour
    fill = tuple(round(255 * m) for m in (mean * 3)[:3])
    try:
        return families[family](text, {"img_mean": fill})
    except (KeyError, AssertionError, ValueError) as error:
        raise InvalidInput(
            f"unknown augmentation policy {text!r} ({error}); known are rand-..., augmix-..., original and "
            "v0, with timm's suffixes, for example rand-m9-mstd0.5"
        ) from None
