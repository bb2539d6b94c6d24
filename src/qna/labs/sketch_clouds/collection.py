"""Things with their clouds, sketches and words, as the networks see them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qna._core.seeds import derive_seed
from qna.labs.sketch_clouds.networks import Told
from qna.labs.sketch_clouds.sketches import DENSE, sketch
from qna.labs.sketch_clouds.things import Thing, as_numbers, drawn_things


class Collection(NamedTuple):
    """Things, row by row.

    Attributes:
        things: what they are.
        points: (B, N, 3).
        parts: int64 (B, N).
        colours: (B, N, 3) in [0, 1].
        sketches: (B, 1, 32, 32).
        kinds: words that name the kind alone, int64 (B, 8).
        captions: words with colours, int64 (B, 8).
    """

    things: list[Thing]
    points: Tensor
    parts: Tensor
    colours: Tensor
    sketches: Tensor
    kinds: Tensor
    captions: Tensor

    def told(self, chosen: Tensor | slice, *, colours: bool) -> Told:
        """Sketch and words of some things; for shapes words of the kind, for colours all."""
        return Told(self.sketches[chosen], (self.captions if colours else self.kinds)[chosen])


def collect(count: int, points: int, seed: int, purpose: str) -> Collection:
    """So many things of drawn kinds, sizes and colours; a cloud is part of what its sketch was made of."""
    things = drawn_things(count, derive_seed(seed, purpose, "things"))
    clouds, parts, colours, sketches = [], [], [], []
    for i, thing in enumerate(things):
        dense = thing.sampled(max(DENSE, points), derive_seed(seed, purpose, "points", i))
        # the dense points are in the order of the parts
        generator = torch.Generator().manual_seed(derive_seed(seed, purpose, "chosen", i))
        chosen = torch.randperm(len(dense.points), generator=generator)[:points]
        clouds.append(dense.points[chosen])
        parts.append(dense.parts[chosen])
        colours.append(thing.colours_of(dense.parts[chosen]))
        sketches.append(sketch(dense))
    return Collection(
        things,
        torch.stack(clouds),
        torch.stack(parts),
        torch.stack(colours),
        torch.stack(sketches),
        as_numbers([thing.caption(colours=False) for thing in things]),
        as_numbers([thing.caption() for thing in things]),
    )
