"""A network of learned queries and a U-Net of convolutions, equal in parameters, trained alike."""

from __future__ import annotations

import shutil
from pathlib import Path

from qna.labs.paired import case_of
from qna.labs.qna_segmentation.config import QnASegmentationConfig
from qna.labs.qna_segmentation.scenes import scenes_in
from qna.labs.row import Figure
from qna.train import TrainConfig, fit
from qna.train.config import (
    AugmentOptions,
    ImageOptions,
    NetworkOptions,
    OptimOptions,
    RunOptions,
    SegmentationOptions,
)

QNA, CONTROL = "qna-unet", "unet"
# with 5 classes 611,573 and 618,613 parameters
NETWORKS = {
    QNA: (
        NetworkOptions(
            model="qna_unet_nano",
            model_kwargs=("dim=32", "patch_size=4", "encoder_blocks=1,1,1", "decoder_blocks=1,1"),
        ),
        SegmentationOptions(),
    ),
    CONTROL: (
        NetworkOptions(model="resnet18", model_kwargs=("layers=1,1,1,1", "channels=32,64,96,16")),
        SegmentationOptions(
            decoder="unet", decoder_kwargs=("encoder_depth=4", "decoder_channels=104,48,32,16")
        ),
    ),
}
BATCH = 8


# what cases are named after
MASKS = "masks"


def train_both(config: QnASegmentationConfig, folder: Path, seed: int, rate: float) -> list[Figure]:
    """Train both networks alike, and tell how well each finds the held-out masks."""
    scenes = scenes_in(folder, config)
    return [
        figure
        for name in NETWORKS
        for figure in _train(config, name, scenes, folder / "training", seed, rate)
    ]


def _train(  # noqa: PLR0917 - what a run differs in
    config: QnASegmentationConfig, name: str, scenes: Path, folder: Path, seed: int, rate: float
) -> list[Figure]:
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped here
    outcome = fit(train_config(config, name, scenes, folder, seed, rate))
    shutil.rmtree(folder)  # its figures are all that is kept
    metrics, case = outcome.metrics, case_of(MASKS, seed, rate)
    extra = {"scenes": config.scenes, "size": config.size, "seed": seed, "lr": rate, "epochs": config.epochs}
    extra |= {count: metrics[count] for count in ("trained_on", "held_out")}
    return [
        Figure(case, name, "train", "miou", "%", 100 * metrics["miou"], extra=extra),
        Figure(case, name, "train", "boundary_miou", "%", 100 * metrics["boundary_miou"], extra=extra),
        Figure(case, name, "none", "parameters", "1", metrics["parameters"], extra=extra),
    ]


def train_config(  # noqa: PLR0917
    config: QnASegmentationConfig, name: str, scenes: Path, folder: Path, seed: int, rate: float
) -> TrainConfig:
    """What a network is trained by: the same for both but for the network itself."""
    network, segmentation = NETWORKS[name]
    return TrainConfig(
        images=ImageOptions(data=str(scenes), image_size=config.size),
        network=network,
        augment=AugmentOptions(crop=(0.5, 1.0), flip=True, color=0.2, smoothing=0.0),
        segmentation=segmentation,
        optim=OptimOptions(
            epochs=config.epochs, batch_size=BATCH, lr=rate, warmup_epochs=config.epochs / 10, clip=1.0
        ),
        run=RunOptions(
            task="segmentation", out=folder, seed=seed, device="cpu", threads=1, tensorboard=False
        ),
    )
