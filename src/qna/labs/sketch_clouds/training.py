"""Training of both stages, and judging of what they draw for unseen sketches."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from qna._core.seeds import derive_seed, seeded
from qna.labs.row import Figure
from qna.labs.sketch_clouds.collection import Collection, collect
from qna.labs.sketch_clouds.config import SketchCloudsConfig
from qna.labs.sketch_clouds.diffusion import (
    SPREAD,
    chamfer,
    draw_colours,
    draw_points,
    earth_movers,
    noise_loss,
)
from qna.labs.sketch_clouds.networks import PointDenoiser, Told
from qna.labs.sketch_clouds.sketches import SIDE
from qna.labs.sketch_clouds.things import COLOURS, Thing
from qna.labs.warmed_cosine import set_rate

GUIDED, WORDS, NOTHING_TOLD = "sketch and words", "words alone", "nothing told"
WRONG, AGAIN = "another thing's sketch", "the thing sampled again"
# which of sketch and words the networks of shape are told
GUIDES = {GUIDED: (True, True), WORDS: (False, True), NOTHING_TOLD: (False, False)}
OWN_WORDS, OTHER_WORDS, PALETTE = "own words", "another's words", "mean colour"
SHAPE, COLOUR = "shape", "colour"


def case_of(what: str, seed: int) -> str:
    """The case of a stage and a seed."""
    return f"{what}-seed{seed}"


def shape(config: SketchCloudsConfig, seed: int) -> list[Figure]:
    """Stage one: three networks, told more or less, and what their points are worth."""
    seen, unseen = _collections(config, seed)
    drawn: dict[str, Tensor] = {}
    for name, (sketch, words) in GUIDES.items():
        network = _train(config, seen, seed, told=(sketch, words))
        guide = _hidden(unseen.told(slice(None), colours=False), sketch=sketch, words=words)
        at = derive_seed(seed, "noise")
        drawn[name] = draw_points(network, guide, config.points, config.few, at)
        if name == GUIDED:
            # of the same kind, so that the words are right
            moved = unseen.sketches.roll(4, 0)
            drawn[WRONG] = draw_points(network, Told(moved, guide.words), config.points, config.few, at)
    drawn[AGAIN] = _sampled_again(config, unseen, seed)
    figures = []
    about = {"things": config.judged, "points": config.points, "steps": config.shape_steps}
    for name, points in drawn.items():
        for metric, far in (("chamfer", chamfer), ("earth-mover", earth_movers)):
            value = far(points, unseen.points).mean().item()
            figures.append(
                Figure(case_of(SHAPE, seed), name, "train", metric, "half cubes", value, extra=about)
            )
    return figures


def colour(config: SketchCloudsConfig, seed: int) -> list[Figure]:
    """Stage two: colours of true points by the thing's own words and by another's; parts by colours."""
    seen, unseen = _collections(config, seed)
    network = _train(config, seen, seed, told=(True, True), placed=True)
    told, at = unseen.told(slice(None), colours=True), derive_seed(seed, "colour noise")
    # another thing of the same kind, in other colours
    other = Told(told.sketch, told.words.roll(4, 0))
    before = unseen.points.clone()
    painted = {
        OWN_WORDS: draw_colours(network, told, unseen.points, config.few, at),
        OTHER_WORDS: draw_colours(network, other, unseen.points, config.few, at),
        PALETTE: torch.tensor(list(COLOURS.values())).mean(0).expand_as(unseen.colours),
    }
    figures, about = [], {"things": config.judged, "points": config.points, "steps": config.colour_steps}
    case = case_of(COLOUR, seed)
    asked = unseen.things[-4:] + unseen.things[:-4]
    for name, colours in painted.items():
        off = (colours - unseen.colours).abs().mean().item()
        figures.append(Figure(case, name, "train", "colour-off", "1", off, extra=about))
        named = asked if name == OTHER_WORDS else unseen.things
        right = 100 * (parts_by_colour(colours, named) == unseen.parts).double().mean().item()
        figures.append(Figure(case, name, "train", "parts-right", "%", right, extra=about))
    moved = (unseen.points - before).abs().max().item()
    figures.append(Figure(case, OWN_WORDS, "none", "points-moved", "half cubes", moved, extra=about))
    return figures


def parts_by_colour(colours: Tensor, things: list[Thing]) -> Tensor:
    """Of each point the part whose named colour is nearest to its own: colours (B, N, 3) -> int64 (B, N)."""
    found = []
    for own, thing in zip(colours, things, strict=True):
        named = torch.tensor([COLOURS[colour] for colour in thing.colours])
        found.append(torch.cdist(own, named).argmin(1))
    return torch.stack(found)


@cache
def _collections(config: SketchCloudsConfig, seed: int) -> tuple[Collection, Collection]:
    return (
        collect(config.things, config.points, seed, "seen"),
        collect(config.judged, config.points, seed, "unseen"),
    )


def _sampled_again(config: SketchCloudsConfig, unseen: Collection, seed: int) -> Tensor:
    """Other points of the same surfaces: the least distance that there can be."""
    clouds = []
    for i, thing in enumerate(unseen.things):
        clouds.append(thing.sampled(config.points, derive_seed(seed, "again", i)).points)
    return torch.stack(clouds)


def _train(
    config: SketchCloudsConfig, seen: Collection, seed: int, *, told: tuple[bool, bool], placed: bool = False
) -> PointDenoiser:
    with seeded(derive_seed(seed, "network")):
        network = PointDenoiser(config.dim, config.depth, config.capsules, SIDE, placed=placed)
    steps = config.colour_steps if placed else config.shape_steps
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    network.train()
    for step in range(steps):
        set_rate(optimizer, config.rate, step, steps, warm=steps // 50)
        generator = torch.Generator().manual_seed(derive_seed(seed, "step", step))
        chosen = torch.randint(len(seen.things), (config.batch,), generator=generator)
        guide = _hidden(seen.told(chosen, colours=placed), sketch=told[0], words=told[1])
        if placed:
            clean, points = 2 * seen.colours[chosen] - 1, seen.points[chosen]
        else:
            clean, points = SPREAD * seen.points[chosen], None
        loss = noise_loss(network, clean, guide, generator, points)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return network


def _hidden(told: Told, *, sketch: bool, words: bool) -> Told:
    """The same, with a blank sheet or no words in the place of what is not told."""
    return Told(
        told.sketch if sketch else torch.zeros_like(told.sketch),
        told.words if words else torch.zeros_like(told.words),
    )
