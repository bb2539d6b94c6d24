"""Things made of coloured parts: their surfaces as clouds of points, and the words that name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qna._core.errors import require

# in the cube [0, 1]
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.85, 0.1, 0.1),
    "green": (0.1, 0.65, 0.2),
    "blue": (0.15, 0.25, 0.9),
    "yellow": (0.95, 0.85, 0.1),
    "black": (0.05, 0.05, 0.05),
    "white": (0.95, 0.95, 0.95),
}
NOTHING, WITH = "", "with"
# the longest caption: a thing with three parts and their colours
WORDS_IN_CAPTION = 8


class Cloud(NamedTuple):
    """Points on the surface of a thing.

    Attributes:
        points: (N, 3), in units of half a cube in which every thing fits; z points up.
        normals: (N, 3).
        parts: int64 (N,), the part of the thing that each lies on.
    """

    points: Tensor
    normals: Tensor
    parts: Tensor


@dataclass(frozen=True)
class Thing:
    """A thing of some kind, size and colours.

    Attributes:
        kind: one of `KINDS`.
        sizes: three numbers in [0, 1] that decide its proportions.
        colours: a name of `COLOURS` for each of its parts.
    """

    kind: str
    sizes: tuple[float, float, float]
    colours: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its parts."""
        return KINDS[self.kind].parts

    def caption(self, *, colours: bool = True) -> tuple[str, ...]:
        """Its words: the kind, and where asked for the colour of each part."""
        words = [self.kind]
        if colours:
            words.append(WITH)
            for colour, part in zip(self.colours, self.parts, strict=True):
                words += [colour, part]
        return tuple(words)

    def sampled(self, count: int, seed: int) -> Cloud:
        """Points drawn evenly from its surface."""
        trimesh: Any = require("trimesh", extra="clouds", purpose="a thing's surface")
        meshes = KINDS[self.kind].build(trimesh, *self.sizes)
        numbers = np.random.default_rng(seed)
        areas = np.array([mesh.area for mesh in meshes])
        of_part = np.sort(numbers.choice(len(meshes), count, p=areas / areas.sum()))
        points, normals = [], []
        for part, mesh in enumerate(meshes):
            drawn, faces = trimesh.sample.sample_surface(mesh, int((of_part == part).sum()), seed=numbers)
            points.append(drawn)
            normals.append(mesh.face_normals[faces])
        at, facing = (torch.from_numpy(np.concatenate(x)).float() for x in (points, normals))
        return Cloud(at, facing, torch.from_numpy(of_part))

    def colours_of(self, parts: Tensor) -> Tensor:
        """The colour of points on these parts, (N, 3) in [0, 1]."""
        return torch.tensor([COLOURS[colour] for colour in self.colours])[parts]


def _chair(trimesh: Any, height: float, width: float, back: float) -> list[Any]:
    h, w, b = 0.35 + 0.45 * height, 0.35 + 0.35 * width, 0.3 + 0.6 * back
    seat = _box(trimesh, (2 * w, 2 * w, 0.12), (0, 0, h - 0.8))
    rest = _box(trimesh, (2 * w, 0.1, b), (0, w - 0.05, h - 0.74 + b / 2))
    return [seat, rest, _legs(trimesh, w - 0.06, w - 0.06, h - 0.06)]


def _table(trimesh: Any, height: float, width: float, depth: float) -> list[Any]:
    h, w, d = 0.4 + 0.8 * height, 0.4 + 0.5 * width, 0.3 + 0.5 * depth
    top = _box(trimesh, (2 * w, 2 * d, 0.12), (0, 0, h - 0.8))
    return [top, _legs(trimesh, w - 0.08, d - 0.08, h - 0.06)]


def _lamp(trimesh: Any, height: float, foot: float, shade: float) -> list[Any]:
    h, r, s = 0.7 + 0.7 * height, 0.2 + 0.3 * foot, 0.25 + 0.4 * shade
    base = _moved(trimesh.creation.cylinder(r, 0.1, sections=24), (0, 0, -0.75))
    pole = _moved(trimesh.creation.cylinder(0.06, h, sections=12), (0, 0, h / 2 - 0.7))
    cone = trimesh.creation.cone(s, 0.5, sections=24)
    return [base, pole, _moved(cone, (0, 0, h - 0.75))]


def _mug(trimesh: Any, height: float, width: float, handle: float) -> list[Any]:
    h, r, a = 0.5 + 0.8 * height, 0.3 + 0.3 * width, 0.15 + 0.25 * handle
    body = trimesh.creation.annulus(r - 0.06, r, h, sections=24)
    ring = trimesh.creation.torus(a, 0.06, major_sections=20, minor_sections=8)
    ring.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    return [_moved(body, (0, 0, h / 2 - 0.8)), _moved(ring, (r + a - 0.05, 0, h / 2 - 0.8))]


class _Kind(NamedTuple):
    parts: tuple[str, ...]
    build: Callable[..., list[Any]]


KINDS: Mapping[str, _Kind] = {
    "chair": _Kind(("seat", "back", "legs"), _chair),
    "table": _Kind(("top", "legs"), _table),
    "lamp": _Kind(("foot", "pole", "shade"), _lamp),
    "mug": _Kind(("body", "handle"), _mug),
}
VOCABULARY: tuple[str, ...] = tuple(
    dict.fromkeys(
        [NOTHING, *KINDS, WITH, *COLOURS, *(part for kind in KINDS.values() for part in kind.parts)]
    )
)


def drawn_things(count: int, seed: int) -> list[Thing]:
    """Things of all kinds in turn, of drawn sizes, no two parts of one colour."""
    numbers = np.random.default_rng(seed)
    things = []
    for i in range(count):
        kind = list(KINDS)[i % len(KINDS)]
        colours = numbers.choice(list(COLOURS), len(KINDS[kind].parts), replace=False)
        things.append(Thing(kind, tuple(numbers.random(3).tolist()), tuple(map(str, colours))))
    return things


def as_numbers(captions: list[tuple[str, ...]]) -> Tensor:
    """Words as places in `VOCABULARY`, filled up with nothing: int64 (B, 8)."""
    filled = [(*words, *[NOTHING] * (WORDS_IN_CAPTION - len(words))) for words in captions]
    return torch.tensor([[VOCABULARY.index(word) for word in words] for words in filled])


def _box(trimesh: Any, extents: tuple[float, ...], at: tuple[float, ...]) -> Any:
    return _moved(trimesh.creation.box(extents), at)


def _legs(trimesh: Any, x: float, y: float, height: float) -> Any:
    legs = [
        _box(trimesh, (0.1, 0.1, height), (sx * x, sy * y, height / 2 - 0.8))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    return trimesh.util.concatenate(legs)


def _moved(mesh: Any, by: tuple[float, ...]) -> Any:
    mesh.apply_translation(by)
    return mesh
