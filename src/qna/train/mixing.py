"""What is done to a whole batch before an update: random erasing, then mixup or CutMix."""

from __future__ import annotations

from typing import Any

import torch

from qna._core.errors import require
from qna._core.seeds import seeded
from qna.train.config import AugmentOptions


class BatchMixer:
    """Erases and mixes a batch as the options say, through timm.

    Args:
        options: erase, mixup, cutmix and smoothing.
        classes: number of classes.
    """

    def __init__(self, options: AugmentOptions, classes: int):
        timm_data = require("timm.data", extra="train", purpose="training")
        erasing = require("timm.data.random_erasing", extra="train", purpose="training")
        self._erase: Any = None
        self._mix: Any = None
        if options.erase:
            # noise per pixel, drawn on the CPU so that it follows from the seed on every device
            self._erase = erasing.RandomErasing(options.erase, mode="pixel", device="cpu")
        if options.mixup or options.cutmix:
            self._mix = timm_data.Mixup(
                mixup_alpha=options.mixup,
                cutmix_alpha=options.cutmix,
                label_smoothing=options.smoothing,
                num_classes=classes,
            )

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (B, C, H, W) and targets: labels (B,), or probabilities (B, classes) where mixed.

        Args:
            images: standardised, on the CPU.
            labels: of the images.
            seed: of all draws.
        """
        if self._erase is None and self._mix is None:
            return images, labels
        images = images.clone()  # timm writes into what it gets
        with seeded(seed):
            if self._erase is not None:
                images = self._erase(images)
            if self._mix is not None:
                images, labels = self._mix(images, labels)
        return images, labels

    @property
    def smooths(self) -> bool:
        """Whether the targets are smoothed already."""
        return self._mix is not None
