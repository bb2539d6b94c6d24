"""Training the networks alike, and what each makes of images that are moved."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from qna.analysis.cost import total_macs
from qna.data import load_data
from qna.data.images.labelled import TensorImages
from qna.labs import classifying
from qna.labs.focalnet_shift.config import FocalNetShiftConfig
from qna.labs.focalnet_shift.networks import NETWORKS, build
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.models.focalnet import FocalNet

# what cases are named after
SHIFTED = "shifted"


def train_all(config: FocalNetShiftConfig, seed: int, rate: float) -> list[Figure]:
    """Train every network on images in their middle, and measure each on moved ones."""
    data = load_data(config.data, config.data_dir)
    train, held_out = (
        framed(part, config.margin) for part in classifying.drawn(data, config.images, config.held_out, seed)
    )
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train), "held_out": len(held_out)}
    size = train.pixels.shape[1:]
    figures = []
    for name in NETWORKS:
        network = build(name, config, channels=size[0], seed=seed)
        classifying.train(network, train, epochs=config.epochs, batch=config.batch, rate=rate, seed=seed)
        middle = classifying.answers(network, held_out)
        elsewhere = torch.stack(
            [classifying.answers(network, moved(held_out, *by)) for by in directions(config.shifts)]
        )
        measured = {
            ("train", "top1", "%"): share(middle == held_out.labels),
            ("none", "moved-top1", "%"): share(elsewhere == held_out.labels),
            ("none", "same-answer", "%"): share(elsewhere == middle),
            ("none", "map-change", "%"): map_change(network, held_out, config.margin),
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
            ("none", "macs", "MMAC"): total_macs(network, (1, *size)) / 1e6,
        }
        case = case_of(SHIFTED, seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures


def framed(images: TensorImages, margin: int) -> TensorImages:
    """With so many pixels of black on every side."""
    return TensorImages(F.pad(images.pixels, (margin,) * 4), images.labels)


def directions(shifts: tuple[int, ...]) -> list[tuple[int, int]]:
    """Rows and columns to move by: each shift along both axes, either way."""
    return [(shift * down, shift * right) for shift in shifts for down, right in product((-1, 1), repeat=2)]


def moved(images: TensorImages, rows: int, columns: int) -> TensorImages:
    """The images moved; their black margins take in what would leave them."""
    return TensorImages(images.pixels.roll((rows, columns), (2, 3)), images.labels)


@torch.no_grad()
def map_change(network: FocalNet, images: TensorImages, margin: int) -> float:
    """How much the last map changes, beside moving, when an image moves by one of the map's positions.

    Root mean square over the positions that hold nothing but image, without the margin's, in per cent of the
    map's spread there.
    """
    step = network.feature_info[-1]["reduction"]
    there, edge, change, spread = moved(images, step, step), -(-margin // step), 0.0, 0.0
    for before, after in zip(images.pixels.split(100), there.pixels.split(100), strict=True):
        first, second = (network.forward_features(classifying.scaled(x)) for x in (before, after))
        rows, columns = (n - 2 * edge for n in first.shape[1:3])
        first = first[:, edge : edge + rows, edge : edge + columns]
        second = second[:, edge + 1 : edge + 1 + rows, edge + 1 : edge + 1 + columns]
        change += float((second - first).square().sum())
        spread += float((first - first.mean((0, 1, 2))).square().sum())
    return 100 * (change / spread) ** 0.5


def share(which: Tensor) -> float:
    """In per cent."""
    return 100 * float(which.double().mean())
