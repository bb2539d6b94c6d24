"""One scene: a piece of a photograph with stamps on it, and what each pixel shows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qna.data.images.decoding import decode
from qna.data.images.folder import PathReader
from qna.data.scenes.sources import SEEN, CutOut

# an object's longer side, in sides of the scene
SMALLEST, LARGEST = 0.25, 0.6
# an object of which less is seen is left out: nobody could tell what it is
_LEAST_PIXELS = 16


@dataclass(frozen=True)
class SceneObject:
    """What is seen of one stamp.

    Attributes:
        label: number of its class, from 1 on.
        pixels: where it is seen, bool (H, W).
    """

    label: int
    pixels: Any

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of what is seen, in pixels."""
        rows, columns = self.pixels.any(1).nonzero()[0], self.pixels.any(0).nonzero()[0]
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


@dataclass(frozen=True)
class Scene:
    """An image and what it shows.

    Attributes:
        image: RGB PIL image.
        mask: class of every pixel, uint8 (H, W); 0 is the background.
        objects: from the one that lies furthest behind.
    """

    image: Any
    mask: Any
    objects: tuple[SceneObject, ...]


def compose(photographs: Sequence[Path], stamps: Sequence[CutOut], side: int, most: int, seed: int) -> Scene:
    """Paste one to `most` stamps on a piece of a photograph; all draws follow from `seed`.

    Classes are equally likely, whatever the number of their stamps. A stamp may hide others and reach beyond
    the edge; its centre lies inside.

    Args:
        photographs: to choose from.
        stamps: to choose from.
        side: of the square scene, in pixels.
        most: stamps.
        seed: of the scene.

    Raises:
        UnreadableImage: with the name of the photograph and the cause.
    """
    import numpy as np

    draw = random.Random(seed)
    image = _background(draw.choice(photographs), side, draw)
    owner = np.zeros((side, side), dtype=np.int64)
    labels = []
    for number in range(1, draw.randint(1, most) + 1):
        label = draw.choice(sorted({stamp.label for stamp in stamps}))
        stamp = draw.choice([stamp for stamp in stamps if stamp.label == label])
        layer = _placed(stamp.path, side, draw)
        image.paste(layer, (0, 0), layer)
        owner[np.asarray(layer.getchannel("A")) >= SEEN] = number
        labels.append(label)
    mask = np.zeros((side, side), dtype=np.uint8)
    objects = []
    for number, label in enumerate(labels, start=1):
        seen = owner == number
        mask[seen] = label
        if seen.sum() >= _LEAST_PIXELS:
            objects.append(SceneObject(label, seen))
    return Scene(image, mask, tuple(objects))


def _background(path: Path, side: int, draw: random.Random) -> Any:
    """A square piece of a photograph, from half of the shorter side to all of it."""
    from PIL import Image

    photograph = decode(PathReader((path,)), 0, str(path))
    shorter = min(photograph.size)
    piece = draw.randint(max(1, shorter // 2), shorter)
    left, top = (draw.randint(0, n - piece) for n in photograph.size)
    return photograph.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + piece, top + piece))


def _placed(path: Path, side: int, draw: random.Random) -> Any:
    """A stamp at some size, mirrored or not, somewhere on an empty layer of the scene's size."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as opened:
        stamp = opened.convert("RGBA")
    stamp = stamp.crop(stamp.getchannel("A").getbbox())
    scale = draw.uniform(SMALLEST, LARGEST) * side / max(stamp.size)
    width, height = (max(1, round(n * scale)) for n in stamp.size)
    stamp = stamp.resize((width, height), Image.Resampling.BICUBIC)
    if draw.random() < 0.5:
        stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    layer = Image.new("RGBA", (side, side))
    layer.paste(stamp, (draw.randrange(side) - width // 2, draw.randrange(side) - height // 2))
    return layer
