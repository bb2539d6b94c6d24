"""Training the networks alike at every image size, and what each makes of held-out images."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from qna.analysis.cost import total_macs
from qna.data import load_data
from qna.data.images.labelled import TensorImages
from qna.labs import classifying
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.vsa_size.config import VSASizeConfig
from qna.labs.vsa_size.networks import NETWORKS, build


def train_all(config: VSASizeConfig, size: int, seed: int, rate: float) -> list[Figure]:
    """Train every network on images of `size` pixels per axis, and judge it on others."""
    data = load_data(config.data, config.data_dir)
    train, held_out = (
        resized(part, size) for part in classifying.drawn(data, config.images, config.held_out, seed)
    )
    about = {"data": config.data, "size": size, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train), "held_out": len(held_out)}
    shape = train.pixels.shape[1:]
    figures = []
    for name in NETWORKS:
        network = build(name, config, size=size, channels=shape[0], seed=seed)
        classifying.train(network, train, epochs=config.epochs, batch=config.batch, rate=rate, seed=seed)
        measured = {
            ("train", "top1", "%"): classifying.top1(network, held_out),
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
            ("none", "macs", "MMAC"): total_macs(network, (1, *shape)) / 1e6,
        }
        case = case_of(size_case(size), seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures


def size_case(size: int) -> str:
    """What cases of images of so many pixels per axis begin with."""
    return f"pixels{size}"


def resized(images: TensorImages, size: int) -> TensorImages:
    """The same images of `size` pixels per axis, bilinear, in whole numbers again."""
    scaled = F.interpolate(images.pixels.float(), (size, size), mode="bilinear", antialias=True)
    return TensorImages(scaled.round().clamp(0, 255).to(torch.uint8), images.labels)
