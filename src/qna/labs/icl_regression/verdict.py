"""When attention was one step of debiased gradient descent: the rule, on figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

from qna.labs.icl_regression.training import (
    BAYES,
    DEBIASED,
    FOUR,
    LINEAR_MEAN,
    LINEAR_SUM,
    LOSS,
    ONE,
    SINGLE,
    THREE,
    TWO,
    WHITENED,
    case_of,
    seed_and_length,
)
from qna.labs.row import Metrics, Verdict, Word

OFF, SUM, ABOVE = "none kq-off-pattern", "none ov-sum", "none heads-above-0"
# examples -> contender -> figures
Lengths = dict[int, Mapping[str, Mapping[str, float]]]
# how near a trained loss must be to the closed form's, and how far the matrices may be from the pattern
WITHIN, PATTERN = 0.02, 10.0
RULE = (
    "In every seed, on the same prompts, each contender from the best of its starts. Held: two heads' loss "
    "is within {WITHIN:.0%} of that of one step of debiased gradient descent at the paper's rate; one "
    f"head's is within {WITHIN:.0%} of the best single head's or below it, and above two heads'; of two "
    f"heads KQ is off a multiple of the unit matrix by {PATTERN:g} % of its norm at most, one head's "
    f"multiple is above 0 and the other's below, and the outputs' sum is {PATTERN:g} % of their size at "
    "most; and at the most examples two heads' loss is below that of linear attention trained alike, in "
    "both its forms. Direction only: two heads below one head, with opposite signs. Else not seen. What "
    "four heads, correlated covariates and two tasks give is told and does not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    seeds = _of(metrics, "independent")
    whole = {seed: found for seed, found in seeds.items() if len(found) > 1}
    if not whole or not all(_complete(found) for found in whole.values()):
        return Verdict(
            "not seen", "Figures of attention with 1 and 2 heads, or of closed forms, are missing."
        )
    words = [_word_of(found) for found in whole.values()]
    word: Word = "not seen"
    if all(words):
        word = "held" if all(found == "held" for found in words) else "direction only"
    at = [_at_training(found) for found in whole.values()]
    most = [found[max(found)] for found in whole.values()]
    length = max(next(iter(whole.values())))
    losses = ", ".join(
        f"{name} {mean(found[name][LOSS] for found in at):.3f}"
        for name in (TWO, DEBIASED, ONE, SINGLE, FOUR, LINEAR_MEAN, LINEAR_SUM, BAYES)
        if all(name in found for found in at)
    )
    longer = ", ".join(
        f"{name} {mean(found[name][LOSS] for found in most):.3f}"
        for name in (TWO, LINEAR_MEAN, LINEAR_SUM, DEBIASED)
    )
    return Verdict(
        word,
        f"Squared error: {losses}; with {length} examples: {longer}. Of two heads KQ is off a multiple of "
        f"the unit matrix by {max(found[TWO][OFF] for found in at):.1f} % and the outputs' sum is "
        f"{max(found[TWO][SUM] for found in at):.1f} % of their size, at most of {len(whole)} seeds."
        + _told(metrics, "correlated", (TWO, WHITENED, DEBIASED, BAYES))
        + _told(metrics, "two-tasks", (ONE, TWO, THREE, FOUR)),
    )


def _of(metrics: Metrics, what: str) -> dict[int, Lengths]:
    """Seed -> examples -> contender -> figures, of a setting."""
    found: dict[int, Lengths] = {}
    for case, contenders in metrics.items():
        if case.startswith(f"{what}-seed"):
            seed, length = seed_and_length(case)
            found.setdefault(seed, {})[length] = contenders
    return found


def _at_training(found: Lengths) -> Mapping[str, Mapping[str, float]]:
    """The length at which the matrices are given: that of training."""
    return next((at for at in found.values() if OFF in at.get(TWO, {})), {})


def _complete(found: Lengths) -> bool:
    at = _at_training(found)
    here = all(LOSS in at.get(name, {}) for name in (ONE, TWO, SINGLE, DEBIASED))
    longest = found[max(found)]
    return here and all(LOSS in longest.get(name, {}) for name in (TWO, LINEAR_MEAN, LINEAR_SUM, DEBIASED))


def _word_of(found: Lengths) -> Word | None:
    at, longest = _at_training(found), found[max(found)]
    two, one = at[TWO][LOSS], at[ONE][LOSS]
    if not (two < one and at[TWO][ABOVE] == 1):
        return None
    reached = (
        abs(two / at[DEBIASED][LOSS] - 1) <= WITHIN
        and one <= (1 + WITHIN) * at[SINGLE][LOSS]
        and at[TWO][OFF] <= PATTERN
        and at[TWO][SUM] <= PATTERN
        and all(longest[TWO][LOSS] < longest[name][LOSS] for name in (LINEAR_MEAN, LINEAR_SUM))
    )
    return "held" if reached else "direction only"


def _told(metrics: Metrics, what: str, names: tuple[str, ...]) -> str:
    """What a further setting gave, in a sentence; empty where it was not asked."""
    cases = [at for lengths in _of(metrics, what).values() for at in lengths.values()]
    shown = [name for name in names if cases and all(LOSS in at.get(name, {}) for at in cases)]
    if not shown:
        return ""
    losses = ", ".join(f"{name} {mean(at[name][LOSS] for at in cases):.3f}" for name in shown)
    off = [at[TWO][OFF] for at in cases if OFF in at.get(TWO, {})]
    form = f", KQ off the inverse covariance by {max(off):.1f} %" if off and what == "correlated" else ""
    return f" {what.replace('-', ' ').capitalize()}: {losses}{form}."


def made_up(*, two: float = 0.24, one: float = 0.4, above: float = 1.0, longer: float = 0.13) -> Metrics:
    """Figures of two seeds."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed in range(2):
        losses = {TWO: two, ONE: one, DEBIASED: 0.24, SINGLE: 0.4, LINEAR_MEAN: 0.24, LINEAR_SUM: 0.24}
        case = {name: {LOSS: value} for name, value in losses.items()}
        case[TWO] |= {OFF: 2.0, SUM: 0.5, ABOVE: above}
        # the multiples that the picture shows
        case[TWO] |= {f"none kq-{h}-{i}-{i}": (-1) ** h * 0.2 for h in range(2) for i in range(2)}
        case[TWO] |= {f"none ov-{h}-0-{i}": (-1) ** h * 2.0 * i for h in range(2) for i in range(2)}
        metrics[case_of("independent", seed, 40)] = case
        metrics[case_of("independent", seed, 320)] = {
            TWO: {LOSS: longer},
            LINEAR_MEAN: {LOSS: 0.135},
            LINEAR_SUM: {LOSS: 30.0},
            DEBIASED: {LOSS: 0.12},
        }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(longer=0.14),
    "not seen": made_up(above=2.0),
}
