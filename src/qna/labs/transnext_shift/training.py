"""Training the networks on objects in the middle, and what each gets right where they are elsewhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qna._core.seeds import derive_seed, seeded
from qna.analysis.cost import total_macs
from qna.data import load_data
from qna.data.images.labelled import TensorImages
from qna.labs import classifying
from qna.labs.paired import case_of
from qna.labs.row import Figure
from qna.labs.transnext_shift.config import TransNeXtShiftConfig
from qna.labs.transnext_shift.networks import CONTENDERS, build

# what cases are named after
ACCURACY = "accuracy"
LEARNED = "top1"


def train_all(config: TransNeXtShiftConfig, seed: int, rate: float) -> list[Figure]:
    """Train every contender alike, on the same images in the same order, and measure each."""
    data = load_data(config.data, config.data_dir)
    train, held_out = classifying.drawn(data, config.images, config.held_out, seed)
    learned = framed(train, config, 0)
    tests = {LEARNED: framed(held_out, config, 0)}
    tests |= {f"top1 shift {shift}": framed(held_out, config, shift) for shift in config.shifts}
    tests |= {f"top1 scale {scale:g}": scaled(tests[LEARNED], scale) for scale in config.scales}
    about = {"data": config.data, "seed": seed, "lr": rate, "epochs": config.epochs}
    about |= {"trained_on": len(train), "held_out": len(held_out)}
    channels = train.pixels.shape[1]
    batch = (config.batch, channels, config.frame, config.frame)
    figures = []
    for name in CONTENDERS:
        with seeded(derive_seed(seed, "weights")):
            network = build(name, config, channels)
        classifying.train(network, learned, epochs=config.epochs, batch=config.batch, rate=rate, seed=seed)
        measured = {
            **{("train", what, "%"): classifying.top1(network, images) for what, images in tests.items()},
            ("none", "parameters", "1"): sum(p.numel() for p in network.parameters()),
            # of an image in a batch, whose images share a bias
            ("none", "macs", "MMAC"): total_macs(network, batch) / config.batch / 1e6,
        }
        case = case_of(ACCURACY, seed, rate)
        figures += [Figure(case, name, *what, value, extra=about) for what, value in measured.items()]
    return figures


def framed(images: TensorImages, config: TransNeXtShiftConfig, shift: int) -> TensorImages:
    """Objects in a black frame, `shift` pixels from its middle along both axes; each image draws where to."""
    small = _resized(images.pixels, config.object)
    side = (config.frame - config.object) // 2
    pixels = small.new_zeros(*small.shape[:2], config.frame, config.frame)
    drawn = torch.Generator().manual_seed(derive_seed(config.seed, "directions"))
    signs = torch.randint(0, 2, (len(small), 2), generator=drawn) * 2 - 1
    for i, (down, across) in enumerate((side + shift * signs).tolist()):
        pixels[i, :, down : down + config.object, across : across + config.object] = small[i]
    return TensorImages(pixels, images.labels)


def scaled(images: TensorImages, scale: float) -> TensorImages:
    """Whole images at another size."""
    return TensorImages(_resized(images.pixels, round(scale * images.pixels.shape[-1])), images.labels)


def _resized(pixels: Tensor, size: int) -> Tensor:
    resized = F.interpolate(pixels.float(), (size, size), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
