"""When a network that points had learned hulls: the rule, on figures alone."""

from __future__ import annotations

from collections.abc import Mapping

from qna.eval.pointing import FAILS_ABOVE
from qna.labs.pointer_hull.training import (
    ATTENDED,
    CONTENDERS,
    COVERAGE,
    EXACT,
    FIXED,
    ORACLE,
    POINTER,
    SIMPLE,
    TRANSFORMER,
    case_of,
    number_of,
)
from qna.labs.row import Metrics, Verdict, Word

# percent of hulls, of area
LEAST_EXACT, LEAST_COVERED = 85.0, 99.0
RULE = (
    f"Held: at every number of points of training the LSTM that points names at least {LEAST_EXACT:g} % of "
    f"the hulls exactly, at most {FAILS_ABOVE:.0%} of its answers are no simple polygon, and the others "
    f"cover more than {LEAST_COVERED:g} % of the area; at the most points of training, and at every number "
    "not seen, it names more hulls exactly than the same LSTM without a pointer, with and without attention; "
    "and at the fewest that were not seen its polygons are simple and cover as in training. Direction only: "
    "more exact hulls than both at the most points of training and at the fewest not seen. Else not seen. "
    "What the Transformer reaches is told and does not count."
)
# case's number -> contender -> figures
Sizes = dict[int, Mapping[str, Mapping[str, float]]]


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    judged = sizes_of(metrics)
    trained, unseen = split_sizes(judged)
    if not trained or not unseen or not all(_has(judged[n], EXACT) for n in judged):
        return Verdict(
            "not seen",
            "Exact hulls of a contender, or of sizes that were not trained on, are missing: 0 judged.",
        )
    ahead = {n: _ahead(judged[n]) for n in judged}
    word: Word = "not seen"
    if ahead[trained[-1]] and ahead[unseen[0]]:
        reached = all(judged[n][POINTER][key(EXACT)] >= LEAST_EXACT for n in trained)
        covers = all(_covers(judged[n][POINTER]) for n in (*trained, unseen[0]))
        reached = reached and covers and all(ahead[n] for n in unseen)
        word = "held" if reached else "direction only"
    sizes = [*trained[:: max(len(trained) - 1, 1)], *unseen]
    told = "; ".join(filter(None, (_told(name, judged, sizes) for name in CONTENDERS)))
    return Verdict(
        word,
        f"Exact hulls / area covered (FAIL: more than {FAILS_ABOVE:.0%} are no simple polygon): {told}."
        + _least(judged, trained),
    )


def _least(judged: Sizes, trained: list[int]) -> str:
    """The fewest exact hulls at a size of training, of each network that points."""
    told = []
    for name in (POINTER, TRANSFORMER):
        found = {n: judged[n][name][key(EXACT)] for n in trained if key(EXACT) in judged[n].get(name, {})}
        if found:
            lowest = min(found, key=found.__getitem__)
            told.append(f"{name} {found[lowest]:.1f} % at {lowest}")
    return f" Fewest exact from {trained[0]} to {trained[-1]} points: {', '.join(told)}."


def key(metric: str) -> str:
    """Of a figure of an answer."""
    return f"none {metric}"


def sizes_of(metrics: Metrics) -> Sizes:
    """Number of points -> contenders, in ascending order."""
    found = {number_of(case, "points"): contenders for case, contenders in metrics.items()}
    return {n: found[n] for n in sorted(n for n in found if n is not None)}


def split_sizes(judged: Sizes) -> tuple[list[int], list[int]]:
    """Sizes of training and sizes that were not seen: those behind the first gap."""
    sizes = list(judged)
    seen = [n for i, n in enumerate(sizes) if n - sizes[0] == i]
    return seen, sizes[len(seen) :]


def _has(contenders: Mapping[str, Mapping[str, float]], metric: str) -> bool:
    return all(key(metric) in contenders.get(name, {}) for name in (POINTER, FIXED))


def _ahead(contenders: Mapping[str, Mapping[str, float]]) -> bool:
    others = [contenders[name][key(EXACT)] for name in (FIXED, ATTENDED) if name in contenders]
    return contenders[POINTER][key(EXACT)] > max(others)


def _covers(figures: Mapping[str, float]) -> bool:
    return not fails(figures) and figures.get(key(COVERAGE), 0.0) > LEAST_COVERED


def fails(figures: Mapping[str, float]) -> bool:
    """Whether the paper would print FAIL in the place of an area."""
    return figures.get(key(SIMPLE), 0.0) < 100 * (1 - FAILS_ABOVE)


def _told(name: str, judged: Sizes, sizes: list[int]) -> str:
    told = []
    for n in dict.fromkeys(sizes):
        figures = judged[n].get(name, {})
        if key(EXACT) in figures:
            covered = "FAIL" if fails(figures) else f"{figures.get(key(COVERAGE), 0.0):.1f} %"
            told.append(f"{n} points {figures[key(EXACT)]:.1f} % / {covered}")
    return f"{name}: {', '.join(told)}" if told else ""


def made_up(
    *,
    exact: float = 90.0,
    far: float = 30.0,
    covered: float = 99.8,
    simple: float = 99.5,
    fixed: float = 40.0,
) -> Metrics:
    """Figures of hulls of 5, 6 and 20 points, with a triangle and what was answered."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for size, reached in ((5, exact), (6, exact), (20, far)):
        metrics[case_of("points", size)] = {
            POINTER: {key(EXACT): reached, key(SIMPLE): simple, key(COVERAGE): covered},
            FIXED: {key(EXACT): fixed if size < 20 else 0.0, key(SIMPLE): 60.0, key(COVERAGE): 97.0},
            ATTENDED: {key(EXACT): fixed + 5 if size < 20 else 0.0, key(SIMPLE): 70.0},
            ORACLE: {key(EXACT): 100.0, key(SIMPLE): 100.0, key(COVERAGE): 100.0},
        }
        for name in (POINTER, FIXED, ORACLE):
            answers = {key(f"corner-0-{at}"): float(at) for at in range(3)}
            metrics[case_of("points", size)][name] |= answers
        places = {
            key(f"{axis}-0-{at}"): 0.2 + 0.5 * (at == i + 1) for i, axis in enumerate("xy") for at in range(3)
        }
        metrics[case_of("points", size)][ORACLE] |= places
    for stage in (1, 2):
        metrics[case_of("stage", stage)] = {
            name: {"train loss": 1 / stage, key(EXACT): 20.0 * stage} for name in CONTENDERS
        }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(simple=98.0),
    "not seen": made_up(fixed=92.0),
}
