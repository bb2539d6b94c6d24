"""Train a network of learned queries to say of every pixel what it shows, and colour a picture by its answer.

    python examples/segmentation.py                           # minutes on one core, on drawn shapes
    python examples/segmentation.py --data FOLDER --size 224  # yours: train/images, train/masks, val/...
    python examples/segmentation.py --data FOLDER --model resnet18 --decoder unet

Needs ``pip install 'qna[dense]'``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from qna.data.scenes.drawn import draw_scenes
from qna.eval import segment
from qna.plots import with_mask
from qna.train import TrainConfig, fit
from qna.train.config import (
    AugmentOptions,
    ImageOptions,
    NetworkOptions,
    OptimOptions,
    RunOptions,
    SegmentationOptions,
)
from qna.train.reload_segmenter import load_segmenter


def main() -> None:
    """Train, then paint one held-out image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of images and masks (default: shapes, drawn)")
    parser.add_argument("--model", default="qna_unet_nano", help="this one, or a backbone for --decoder")
    parser.add_argument("--decoder", help="of segmentation_models_pytorch, around a backbone")
    parser.add_argument("--out", type=Path, default=Path("runs/segmentation"))
    parser.add_argument("--size", type=int, default=48, help="pixels of an image's shorter side")
    parser.add_argument("--images", type=int, default=600, help="shapes: images to train on")
    parser.add_argument("--epochs", type=int, default=8)
    told = parser.parse_args()

    data = told.data or draw_scenes(told.out / "shapes", told.images, told.size)
    outcome = fit(
        TrainConfig(
            images=ImageOptions(data=str(data), image_size=told.size),
            network=NetworkOptions(model=told.model),
            augment=AugmentOptions(crop=(0.5, 1.0), flip=True, color=0.2, smoothing=0.0),
            segmentation=SegmentationOptions(decoder=told.decoder),
            optim=OptimOptions(epochs=told.epochs, batch_size=8, lr=9.6e-2, warmup_epochs=1, clip=1.0),
            run=RunOptions(task="segmentation", out=told.out / "run", threads=1),
        )
    )
    print(f"mean IoU {outcome.scores.miou:.3f} on {outcome.scores.images} held-out images")

    # what the run left is all that is needed
    segmenter = load_segmenter(str(outcome.folder))
    picture, truth = outcome.data.held_out.open(0)
    found = segment(segmenter, picture)
    both = Image.new("RGB", (2 * picture.width, picture.height))
    both.paste(picture)
    both.paste(with_mask(picture, found, segmenter.palette), (picture.width, 0))
    both.save(told.out / "found.png")
    right = (found == truth)[truth != segmenter.ignore].mean()
    print(f"{told.out / 'found.png'} shows the first of them and its classes, {right:.0%} of them right")


if __name__ == "__main__":
    main()
