"""The scenes that both networks learn from, made once in the laboratory's folder."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from qna._core.seeds import derive_seed
from qna.data.scenes import SceneOptions, write_scenes
from qna.labs.qna_segmentation.config import QnASegmentationConfig

# pictures of each kind: one in five is held out of training
_DRAWN = 10


def scenes_in(folder: Path, config: QnASegmentationConfig) -> Path:
    """The folder of the scenes; made, whole or not at all, where it is not there."""
    root, unfinished = folder / "scenes", folder / "scenes.part"
    if not root.is_dir():
        shutil.rmtree(unfinished, ignore_errors=True)
        stamps, photos = config.stamps, config.photos
        if config.scenes == "shapes":
            stamps, photos = draw_shapes(folder / "shapes")
        options = SceneOptions(config.images, config.held_out, config.size, stamps=stamps, photos=photos)
        write_scenes(unfinished, options)
        os.replace(unfinished, root)
    return root


def draw_shapes(folder: Path) -> tuple[Path, Path]:
    """Draw discs, boxes and triangles of all colours, and backgrounds of two: a folder of each."""
    from PIL import Image, ImageDraw

    stamps, photos = folder / "stamps", folder / "photos"
    corners = {"box": ((5, 20), (59, 20), (59, 44), (5, 44)), "triangle": ((32, 4), (60, 58), (4, 58))}
    for kind in ("disc", *corners):
        (stamps / kind).mkdir(parents=True, exist_ok=True)
        for number in range(_DRAWN):
            stamp = Image.new("RGBA", (64, 64))
            pen, colour = ImageDraw.Draw(stamp), (*_colour(kind, number), 255)
            if kind == "disc":
                pen.ellipse((4, 4, 60, 60), fill=colour)
            else:
                pen.polygon(corners[kind], fill=colour)
            stamp.save(stamps / kind / f"{number}.png")
    photos.mkdir(exist_ok=True)
    for number in range(_DRAWN):
        first, second = (Image.new("RGB", (96, 96), _colour("photo", number, side)) for side in range(2))
        mix = Image.linear_gradient("L").resize((96, 96))
        Image.composite(first, second, mix).save(photos / f"{number}.png")
    return stamps, photos


def _colour(*what: str | int) -> tuple[int, int, int]:
    draw = random.Random(derive_seed(*what))
    return draw.randrange(256), draw.randrange(256), draw.randrange(256)
