"""Detectors on backbones of equal size, which learn the same scenes by the same rules."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from qna.data.scenes import SceneOptions, write_scenes
from qna.data.scenes.drawn import draw_sources
from qna.labs.qna_detection.config import QnADetectionConfig
from qna.labs.row import Figure
from qna.train import Outcome, TrainConfig, fit
from qna.train.config import (
    AugmentOptions,
    DetectionOptions,
    ImageOptions,
    NetworkOptions,
    OptimOptions,
    RunOptions,
)

QNA, CONVOLUTIONS, UNTRAINED = "qna", "convnext", "untrained"
# (model, its arguments): four stages at strides of 4 to 32, within 3 % of each other in parameters
BACKBONES = {
    QNA: (
        "qna_vit_tiny_7x7",
        ("dim=16", "qna_blocks=1,1,1,1", "window_blocks=0,0,0,0", "window_head_dim=16"),
    ),
    CONVOLUTIONS: ("convnext_atto", ("dims=16,32,64,128", "depths=3,3,3,2")),
}
_COMMON = (
    *("d_model=64", "num_queries=20", "encoder_attention_heads=4", "decoder_attention_heads=4"),
    *("encoder_ffn_dim=128", "decoder_ffn_dim=128"),
)
HEADS = {
    "rt-detr": (*_COMMON, "encoder_hidden_dim=32", "decoder_layers=2", "num_denoising=0"),
    "detr": (*_COMMON, "encoder_layers=2", "decoder_layers=2", "dropout=0.0"),
}


def case_of(detector: str, seed: int) -> str:
    """The case of a detector and a seed; `detector_of` reads the detector back."""
    return f"{detector}-seed{seed}"


def detector_of(case: str) -> str:
    """The detector of a case."""
    return case.rsplit("-seed", 1)[0]


def train_all(config: QnADetectionConfig, folder: Path, detector: str, seed: int) -> list[Figure]:
    """Train a detector on both backbones, and judge one beside that nothing was taught."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped here
    stamps, photos = (
        draw_sources(folder / "sources", each=30, seed=seed)
        if config.drawn
        else (config.stamps, config.photos)
    )
    options = SceneOptions(
        images=config.images,
        held_out=config.held_out,
        size=config.size,
        objects=config.objects,
        seed=seed,
        stamps=stamps,
        photos=photos,
    )
    write_scenes(folder / "scenes", options)
    figures = []
    for name, backbone in ((QNA, QNA), (CONVOLUTIONS, CONVOLUTIONS), (UNTRAINED, QNA)):
        told = train_config(config, detector, backbone, folder, seed)
        if name == UNTRAINED:
            told = replace(told, optim=replace(told.optim, lr=0.0, epochs=1))
        figures += _figures(case_of(detector, seed), name, fit(told), seed)
    shutil.rmtree(folder)  # its figures are all that is kept
    return figures


def _figures(case: str, name: str, outcome: Outcome, seed: int) -> list[Figure]:
    m = outcome.metrics
    extra = {"seed": seed, **{fact: m[fact] for fact in ("trained_on", "held_out", "epochs")}}
    return [
        Figure(case, name, "train", "map", "%", 100 * m["map"], extra=extra),
        Figure(case, name, "train", "map_50", "%", 100 * m["map_50"], extra=extra),
        Figure(case, name, "none", "parameters", "1", m["parameters"], extra=extra),
    ]


def train_config(
    config: QnADetectionConfig, detector: str, backbone: str, folder: Path, seed: int
) -> TrainConfig:
    """How one of them learns."""
    model, arguments = BACKBONES[backbone]
    return TrainConfig(
        images=ImageOptions(data=str(folder / "scenes"), image_size=config.size),
        network=NetworkOptions(model=model, model_kwargs=arguments, drop_path=0.0),
        augment=AugmentOptions(flip=True),
        detection=DetectionOptions(detector=detector, detector_kwargs=HEADS[detector]),
        optim=OptimOptions(
            epochs=config.epochs,
            batch_size=min(8, config.images),
            lr=config.rate,
            warmup_epochs=config.epochs / 10,
            weight_decay=1e-4,
            clip=1.0,
        ),
        run=RunOptions(
            task="detection",
            out=folder / backbone,
            seed=seed,
            device="cpu",
            threads=1,
            tensorboard=False,
        ),
    )
