"""When sketch and words guided points and colours: the rule, on figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

from qna.labs.row import Metrics, Verdict, Word
from qna.labs.sketch_clouds.training import (
    AGAIN,
    COLOUR,
    GUIDED,
    NOTHING_TOLD,
    OTHER_WORDS,
    OWN_WORDS,
    PALETTE,
    SHAPE,
    WORDS,
    WRONG,
    case_of,
)

CHAMFER, MOVER = "train chamfer", "train earth-mover"
OFF, PARTS, MOVED = "train colour-off", "train parts-right", "none points-moved"
# of all points, in per cent
RIGHT = 90.0
RULE = (
    "Held: in every seed the clouds drawn by sketch and words are nearer to the things, by Chamfer and by "
    "earth mover's distance, than those drawn by words alone, by nothing, and by another thing's sketch; the "
    "colours by the thing's own words are nearer than by another's and than the mean colour; colours tell "
    f"the part of {RIGHT:g} % of the points at least; and no point was moved by its colour. Direction only: "
    "all of that but the part of points. Else not seen. How far the same thing is from itself, sampled "
    "again, is told."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    seeds = sorted(int(case.split("-seed")[1]) for case in metrics if case.startswith(f"{SHAPE}-seed"))
    found = [(metrics[case_of(SHAPE, s)], metrics.get(case_of(COLOUR, s), {})) for s in seeds]
    if not found or not all(_complete(*each) for each in found):
        return Verdict("not seen", "Figures of drawn points or colours are missing: 0 comparisons.")
    word: Word = "not seen"
    if all(_guided(*each) for each in found):
        enough = min(colours[OWN_WORDS][PARTS] for _, colours in found) >= RIGHT
        word = "held" if enough else "direction only"
    far = ", ".join(
        f"{name} {mean(points[name][CHAMFER] for points, _ in found):.3f} and "
        f"{mean(points[name][MOVER] for points, _ in found):.3f}"
        for name in (GUIDED, WORDS, NOTHING_TOLD, WRONG, AGAIN)
        if all(name in points for points, _ in found)
    )
    off = ", ".join(
        f"{name} {mean(colours[name][OFF] for _, colours in found):.3f}"
        for name in (OWN_WORDS, OTHER_WORDS, PALETTE)
    )
    parts = mean(colours[OWN_WORDS][PARTS] for _, colours in found)
    return Verdict(
        word,
        f"Chamfer and earth mover's distance, in half cubes: {far}. Colours off by: {off}. Parts told by "
        f"colour: {parts:.1f} % of the points.",
    )


def _complete(points: Mapping[str, Mapping], colours: Mapping[str, Mapping]) -> bool:
    shapes = all(
        f in points.get(name, {}) for name in (GUIDED, WORDS, NOTHING_TOLD, WRONG) for f in (CHAMFER, MOVER)
    )
    painted = all(OFF in colours.get(name, {}) for name in (OWN_WORDS, OTHER_WORDS, PALETTE))
    return shapes and painted and all(f in colours[OWN_WORDS] for f in (PARTS, MOVED))


def _guided(points: Mapping[str, Mapping], colours: Mapping[str, Mapping]) -> bool:
    nearer = all(
        points[GUIDED][f] < points[name][f] for name in (WORDS, NOTHING_TOLD, WRONG) for f in (CHAMFER, MOVER)
    )
    painted = all(colours[OWN_WORDS][OFF] < colours[name][OFF] for name in (OTHER_WORDS, PALETTE))
    return nearer and painted and colours[OWN_WORDS][MOVED] == 0


def made_up(*, guided: float = 0.2, parts: float = 95.0) -> Metrics:
    """Metrics of two seeds."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed in range(2):
        far = {GUIDED: guided, WORDS: 0.4, NOTHING_TOLD: 0.6, WRONG: 0.5, AGAIN: 0.15}
        metrics[case_of(SHAPE, seed)] = {name: {CHAMFER: x, MOVER: x} for name, x in far.items()}
        off = {OWN_WORDS: 0.05, OTHER_WORDS: 0.4, PALETTE: 0.3}
        metrics[case_of(COLOUR, seed)] = {name: {OFF: x, PARTS: 50.0} for name, x in off.items()}
        metrics[case_of(COLOUR, seed)][OWN_WORDS] = {OFF: 0.05, PARTS: parts, MOVED: 0.0}
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(parts=80.0),
    "not seen": made_up(guided=0.45),
}
