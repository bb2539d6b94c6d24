"""Shapes and backgrounds drawn by a rule, from which scenes can be composed where nothing is installed."""

from __future__ import annotations

import random
from pathlib import Path

from qna._core.seeds import derive_seed
from qna.data.scenes.writing import SceneOptions, write_scenes

# shape -> corners of the polygons that make it, in a square of side 1
_THIRD = 1 / 3
_SHAPES = {
    "cross": (
        ((0, _THIRD), (1, _THIRD), (1, 2 * _THIRD), (0, 2 * _THIRD)),
        ((_THIRD, 0), (2 * _THIRD, 0), (2 * _THIRD, 1), (_THIRD, 1)),
    ),
    "diamond": (((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),),
    "square": (((0, 0), (1, 0), (1, 1), (0, 1)),),
    "triangle": (((0.5, 0), (1, 1), (0, 1)),),
}
SHAPES = tuple(_SHAPES)
_SIDE = 64
# levels of 256 by which a background varies
_SPREAD = 24


def draw_sources(root: Path, *, each: int = 10, seed: int = 0) -> tuple[Path, Path]:
    """Draw cut-out shapes of `SHAPES`, and backgrounds of smooth noise.

    Shapes have any colour, and a background varies a little around one: what is on it can be seen.

    Args:
        root: a folder; shapes go to cut-outs/ in it, a folder each, and backgrounds to backgrounds/.
        each: of every shape, and backgrounds.
        seed: of all draws.

    Returns:
        the folder of shapes and that of backgrounds, as `SceneOptions` takes them.
    """
    from PIL import Image, ImageDraw

    draw = random.Random(derive_seed(seed, "drawn"))
    cut_outs, backgrounds = root / "cut-outs", root / "backgrounds"
    for name, shape in _SHAPES.items():
        (cut_outs / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            # a border of one pixel: a cut-out has something that is not seen
            image, colour = Image.new("RGBA", (_SIDE + 2, _SIDE + 2)), _colour(draw)
            for polygon in shape:
                corners = [(1 + x * (_SIDE - 1), 1 + y * (_SIDE - 1)) for x, y in polygon]
                ImageDraw.Draw(image).polygon(corners, colour)
            image.save(cut_outs / name / f"{number}.png")
    backgrounds.mkdir(parents=True, exist_ok=True)
    for number in range(each):
        middle, coarse = _colour(draw), Image.new("RGB", (5, 4))
        coarse.putdata(
            [tuple(level + draw.randint(-_SPREAD, _SPREAD) for level in middle) for _ in range(5 * 4)]
        )
        smooth = coarse.resize((160, 120), Image.Resampling.BICUBIC)
        smooth.save(backgrounds / f"{number}.png")
    return cut_outs, backgrounds


def draw_scenes(folder: Path, images: int, size: int) -> Path:
    """Compose scenes of drawn shapes in a folder that is not there yet, and a quarter as many held-out ones.

    Args:
        folder: sources/ and scenes/ are made in it; where it is there already, nothing is.
        images: to train on.
        size: side of a scene, in pixels.

    Returns:
        the folder of scenes.
    """
    if not folder.exists():
        stamps, photos = draw_sources(folder / "sources", each=30)
        options = SceneOptions(
            images=images, held_out=max(4, images // 4), size=size, stamps=stamps, photos=photos
        )
        write_scenes(folder / "scenes", options)
    return folder / "scenes"


def _colour(draw: random.Random) -> tuple[int, int, int]:
    return draw.randrange(256), draw.randrange(256), draw.randrange(256)
