"""Recipes: complete configurations, as Python, one function each.

A recipe's docstring says what it is for and what is known of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qna._core.errors import UnknownName, check_choice
from qna.data.text import is_drawn
from qna.train.config import (
    AugmentOptions,
    ImageOptions,
    LanguageOptions,
    NetworkOptions,
    OptimOptions,
    RunOptions,
    TrainConfig,
    VolumeOptions,
)
from qna.train.tasks import TASKS


def digits() -> TrainConfig:
    """Handwritten digits: about a minute on one core, 98 to 99 % of the 360 held-out images right."""
    return TrainConfig(
        images=ImageOptions(data="digits", image_size=16),
        network=NetworkOptions(model="qna_vit_nano_16"),
        augment=AugmentOptions(rotate=10, shift=0.08, zoom=0.1, smoothing=0.1),
        optim=OptimOptions(epochs=20, batch_size=64, lr=1.6e-2, warmup_epochs=2, ema=0.98),
        # one thread gives the same figures whatever the number of cores, and leaves room for other work
        run=RunOptions(threads=1),
    )


def fashion_mnist_laptop() -> TrainConfig:
    """One pass over Fashion-MNIST with a small QnA-ViT, for a core of a laptop; see `cifar10_laptop`."""
    base = cifar10_laptop()
    return replace(
        base,
        images=ImageOptions(data="fashion-mnist", image_size=28),
        optim=replace(base.optim, epochs=1),
    )


def fashion_mnist() -> TrainConfig:
    """Fashion-MNIST at its own 28 pixels, for a GPU; what it reaches has not been measured."""
    return TrainConfig(
        images=ImageOptions(data="fashion-mnist", image_size=28),
        network=NetworkOptions(model="qna_vit_micro_32", drop_path=0.1),
        augment=AugmentOptions(shift=0.08, zoom=0.05, flip=True, erase=0.25, smoothing=0.1),
        optim=OptimOptions(epochs=50, batch_size=128, lr=2e-3, warmup_epochs=3, clip=1.0, ema=0.999),
    )


def cifar10_laptop() -> TrainConfig:
    """Two passes over CIFAR-10 with a small QnA-ViT, for a core of a laptop: a comparison, no convergence.

    What it reaches is in docs/accuracy.md, with the minutes. The rate is the best of 4e-3, 8e-3, 1.6e-2
    and 3.2e-2 in one pass over 20,000 of the training images, judged on 5,000 others.
    """
    return TrainConfig(
        images=ImageOptions(data="cifar10", image_size=32),
        network=NetworkOptions(
            model="qna_vit_nano_16",
            model_kwargs=("dim=24", "window_head_dim=12", "qna_blocks=1,1,0"),
            drop_path=0.0,
        ),
        augment=AugmentOptions(flip=True, smoothing=0.1),
        optim=OptimOptions(epochs=2, batch_size=64, lr=1.6e-2, warmup_epochs=0.2, clip=1.0),
        run=RunOptions(device="cpu", threads=1),
    )


def cifar10() -> TrainConfig:
    """CIFAR-10 from scratch at its own 32 pixels, for a GPU; what it reaches has not been measured."""
    return TrainConfig(
        images=ImageOptions(data="cifar10", image_size=32, workers=4),
        network=NetworkOptions(model="qna_vit_micro_32", drop_path=0.1),
        augment=AugmentOptions(
            shift=0.125,
            flip=True,
            policy="rand-m9-n2-mstd0.5",
            erase=0.25,
            mixup=0.8,
            cutmix=1.0,
            smoothing=0.1,
        ),
        optim=OptimOptions(epochs=300, batch_size=128, lr=2e-3, warmup_epochs=10, clip=1.0, ema=0.9998),
    )


def segmentation() -> TrainConfig:
    """Scenes of `qna data stamps` at their 96 pixels, on one core; see docs/segmentation.md."""
    return TrainConfig(
        images=ImageOptions(data="data/stamps", image_size=96),
        network=NetworkOptions(model="qna_unet_nano"),
        augment=AugmentOptions(crop=(0.5, 1.0), flip=True, color=0.2, smoothing=0.0),
        optim=OptimOptions(epochs=20, batch_size=8, lr=3.2e-2, warmup_epochs=1, clip=1.0, ema=0.99),
        run=RunOptions(task="segmentation", threads=1),
    )


def imagenet() -> TrainConfig:
    """The paper's 300 epochs on ImageNet-1k (Arar et al., CVPR 2022), 1,024 images an update.

    AdamW with decay 0.05 and rate 5e-4 per 256 images, 5 epochs of warm-up (20 for their base model),
    cosine to 0, no clipping; random crops of 8 to 100 % of the area, RandAugment, colour jitter, erasing,
    mixup 0.8 without CutMix, smoothing 0.1. The batch here is for 8 processes; with another number keep
    batch_size x accumulate x processes at 1,024. The paper reports 81.7 % for qna_vit_tiny.
    """
    return TrainConfig(
        images=ImageOptions(data="imagenet", image_size=224, crop_pct=224 / 256, workers=8),
        network=NetworkOptions(model="qna_vit_tiny"),
        augment=AugmentOptions(
            crop=(0.08, 1.0),
            flip=True,
            color=0.3,
            policy="rand-m9-n2-p0.5-mstd0.5",
            erase=0.25,
            mixup=0.8,
            smoothing=0.1,
        ),
        optim=OptimOptions(epochs=300, batch_size=128, lr=5e-4, warmup_epochs=5, weight_decay=0.05),
        run=RunOptions(precision="bf16", save_every=1000),
    )


def imagenet_384() -> TrainConfig:
    """30 epochs at 384 pixels after `imagenet`: ``--recipe imagenet-384 --weights RUN/model.safetensors``.

    Constant rate 1e-5 per 256 images and decay 1e-8, as the authors' configuration says. Their own code
    cannot run it, for its windows must divide the map; here the map is padded and the padding masked.
    """
    base = imagenet()
    return replace(
        base,
        images=replace(base.images, image_size=384, crop_pct=1.0),
        optim=OptimOptions(
            epochs=30, batch_size=64, lr=1e-5, schedule="constant", warmup_epochs=0, weight_decay=1e-8
        ),
    )


def detection() -> TrainConfig:
    """DETR on COCO, for GPUs; what it reaches has not been measured.

    Rate, decay, clipping and largest side are those of DETR's authors (Carion et al., ECCV 2020), who train
    300 epochs with 64 images an update; they let the backbone learn at a tenth of the rate, from weights of
    ImageNet, where here all parameters have one rate.
    """
    return TrainConfig(
        images=ImageOptions(data="coco", image_size=1333, workers=4),
        network=NetworkOptions(model="qna_vit_tiny_7x7"),
        augment=AugmentOptions(crop=(0.3, 1.0), flip=True),
        optim=OptimOptions(epochs=300, batch_size=8, lr=4e-4, warmup_epochs=1, weight_decay=1e-4, clip=0.1),
        run=RunOptions(task="detection", precision="bf16", save_every=1000),
    )


def language_laptop() -> TrainConfig:
    """A small decoder on two megabytes of the source of Python's standard library, in bytes, on one core."""
    return TrainConfig(
        images=ImageOptions(data="stdlib"),
        network=NetworkOptions(model="decoder_nano"),
        language=LanguageOptions(context=256, limit=2_000_000),
        optim=OptimOptions(epochs=1, batch_size=8, lr=3.2e-2, warmup_epochs=0.1, weight_decay=0.1, clip=1.0),
        run=RunOptions(task="language", device="cpu", threads=1),
    )


def volumes() -> TrainConfig:
    """Lesions drawn into the MNI152 template at 2 mm, a small 3-D U-Net, on one core; see docs/volumes.md."""
    return TrainConfig(
        images=ImageOptions(data="lesions"),
        network=NetworkOptions(model="unet3d_nano"),
        augment=AugmentOptions(color=0.2, smoothing=0.0),
        volumes=VolumeOptions(patch=(32, 32, 32), patches=96),
        optim=OptimOptions(epochs=6, batch_size=4, lr=0.32, warmup_epochs=0.5, clip=1.0, ema=0.95),
        run=RunOptions(task="volumes", threads=1),
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "fashion-mnist-laptop": fashion_mnist_laptop,
    "cifar10": cifar10,
    "cifar10-laptop": cifar10_laptop,
    "segmentation": segmentation,
    "imagenet": imagenet,
    "imagenet-384": imagenet_384,
    "detection": detection,
    "language-laptop": language_laptop,
    "volumes": volumes,
}

# task -> its recipe, where that has another name
_OF_TASK = {"language": "language-laptop"}


def recipe(name: str) -> TrainConfig:
    """The configuration of the recipe called `name`.

    Raises:
        UnknownName: with the nearest names.
    """
    return RECIPES[check_choice("recipe", name, RECIPES)]()


def recipe_for(data: str | None, task: str = "classification") -> TrainConfig:
    """The recipe of a data set: its own, or `imagenet` for photographs in folders, archives or on the hub.

    A task other than classification may have one of its own name, which goes before the data's.

    Raises:
        UnknownName: if `data` is neither a name nor a place, or there is no such task.
    """
    named = _OF_TASK.get(check_choice("task", task, TASKS), task)
    if named in RECIPES:
        found = recipe(named)
        if task == "language" and data is not None and is_drawn(data):
            # sequences that are drawn have a number, and no bytes
            found = replace(found, language=replace(found.language, limit=0, context=64))
        return found
    if data is None:
        return digits()
    if data in RECIPES:
        return recipe(data)
    if data.startswith(("wds/", "hfds/")) or Path(data).is_dir():
        return imagenet()
    others = {"imagenet", "imagenet-384", *TASKS, *_OF_TASK.values()}
    raise UnknownName("data", data, [name for name in RECIPES if name not in others])
