"""Train a detector with a QnA backbone on boxes in COCO's format, and look for things in a picture.

    python examples/detection.py                          # minutes on one core: RT-DETR, on drawn shapes
    python examples/detection.py --data COCO --size 640   # your folder: annotations/, train2017/, val2017/

Needs ``pip install 'qna[dense]'``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from qna.data.scenes.drawn import draw_scenes
from qna.eval import find_boxes
from qna.plots import DrawnBox, plot_boxes
from qna.train import TrainConfig, fit
from qna.train.config import (
    AugmentOptions,
    DetectionOptions,
    ImageOptions,
    NetworkOptions,
    OptimOptions,
    RunOptions,
)
from qna.train.reload_detector import load_detector


def main() -> None:
    """Train, then draw what is found in one held-out image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of COCO's layout (default: shapes, drawn)")
    parser.add_argument("--out", type=Path, default=Path("runs/detection"))
    parser.add_argument("--size", type=int, default=96, help="side of the squares that are read, in pixels")
    parser.add_argument("--images", type=int, default=800, help="shapes: images to train on")
    parser.add_argument("--epochs", type=int, default=12)
    told = parser.parse_args()

    data = told.data or draw_scenes(told.out / "shapes", told.images, told.size)
    outcome = fit(
        TrainConfig(
            images=ImageOptions(data=str(data), image_size=told.size),
            # a backbone of half a million parameters; drop model_kwargs for the paper's
            network=NetworkOptions(
                model="qna_vit_tiny_7x7",
                model_kwargs=("dim=16", "qna_blocks=1,1,1,1", "window_blocks=0,0,0,0", "window_head_dim=16"),
            ),
            augment=AugmentOptions(flip=True),
            detection=DetectionOptions(
                detector="rt-detr",
                detector_kwargs=(
                    *("d_model=64", "encoder_hidden_dim=32", "num_queries=20", "decoder_layers=2"),
                    # what helps over many epochs only costs time in a few
                    "num_denoising=0",
                ),
            ),
            optim=OptimOptions(
                epochs=told.epochs, batch_size=8, lr=3.2e-2, warmup_epochs=1, weight_decay=1e-4, clip=1.0
            ),
            run=RunOptions(task="detection", out=told.out / "run", threads=1),
        )
    )
    print(f"mean average precision {outcome.scores.map:.3f} on {outcome.scores.images} held-out images")

    # what the run left is all that is needed
    finder = load_detector(str(outcome.folder))
    path = outcome.data.held_out.paths[0]
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    boxes = [
        DrawnBox(tuple(corners.tolist()), f"{finder.classes[label]} {score:.2f}")
        for score, label, corners in zip(*find_boxes(finder, picture), strict=True)
        if score >= 0.5
    ]
    plot_boxes(told.out / "found.png", [picture], [boxes], title=f"{len(boxes)} found in {path.name}")
    print(f"{told.out / 'found.png'} shows {len(boxes)} of them in {path}")


if __name__ == "__main__":
    main()
