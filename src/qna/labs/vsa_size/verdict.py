"""When the gain of varied-size windows grew with the image: the rule, on figures alone."""

from __future__ import annotations

import re
from statistics import mean

from qna.labs import paired
from qna.labs.paired import BySeed
from qna.labs.row import Metrics, Verdict, Word
from qna.labs.vsa_size.networks import FIXED, NETWORKS, SHIFTED, VARIED
from qna.labs.vsa_size.training import size_case

TOP1 = "train top1"
RULE = (
    "At each image size every network counts at the learning rate with its better mean accuracy over the "
    f"seeds; {SHIFTED} is told and does not count. The gain is the accuracy of {VARIED} above {FIXED}, and "
    "growth is the gain at the largest size above that at the smallest, seed by seed. Held: both the gain at "
    "the largest size and the growth are above two standard errors of their means. Direction only: both are "
    "above one. Else not seen."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    sizes = sizes_of(metrics)
    best = {size: at_size(metrics, size) for size in sizes}
    gains = {size: paired.gain(best[size], VARIED, FIXED) for size in sizes}
    growth = _growth(best[sizes[0]], best[sizes[-1]]) if len(sizes) > 1 else None
    largest = gains[sizes[-1]] if sizes else None
    if growth is None or largest is None:
        return Verdict("not seen", f"Figures of {VARIED} and {FIXED} at 2 sizes over 2 seeds are missing.")
    both = (growth, largest)
    word: Word = "not seen"
    if all(value > 2 * error and value > 0 for value, error in both):
        word = "held"
    elif all(value > error and value > 0 for value, error in both):
        word = "direction only"
    told = "; ".join(_told(size, best[size], gains[size]) for size in sizes)
    return Verdict(word, f"{told}. Growth {growth[0]:+.2f} (standard error {growth[1]:.2f}).")


def _told(size: int, best: BySeed, gain: tuple[float, float] | None) -> str:
    means = ", ".join(f"{name} {mean(best[name].values()):.1f} %" for name in NETWORKS if name in best)
    gained = f", gain {gain[0]:+.2f} (standard error {gain[1]:.2f})" if gain else ""
    return f"{size} pixels: {means}{gained}"


def sizes_of(metrics: Metrics) -> list[int]:
    """Image sizes of the cases, growing."""
    found = (re.match(rf"{size_case(0)[:-1]}(\d+)-", case) for case in metrics)
    return sorted({int(match[1]) for match in found if match})


def at_size(metrics: Metrics, size: int) -> BySeed:
    """Accuracy by seed of each network at its better rate, on images of so many pixels per axis."""
    cases = {case: figures for case, figures in metrics.items() if case.startswith(f"{size_case(size)}-")}
    return paired.best_of(cases, NETWORKS, TOP1)


def _growth(small: BySeed, large: BySeed) -> tuple[float, float] | None:
    """By how much gains are above those on smaller images, seed by seed, and the standard error."""
    gains = {
        name: {
            seed: of[VARIED][seed] - of[FIXED][seed]
            for seed in of.get(VARIED, {})
            if seed in of.get(FIXED, {})
        }
        for name, of in (("small", small), ("large", large))
    }
    return paired.gain(gains, "large", "small")


def made_up(*, small: float = 0.5, large: float = 3.0, noise: float = 0.1) -> Metrics:
    """Metrics of two seeds: gains at two sizes, at the large one +- `noise`."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for size, gain in ((16, small), (48, large)):
        for seed, sign in enumerate((-1, 1)):
            # the other rate is worse for all
            for rate, loss in ((4e-3, 0.0), (1e-2, 3.0)):
                at = {VARIED: 70.0 + gain + (sign * noise if size == 48 else 0.0), FIXED: 70.0, SHIFTED: 71.0}
                metrics[paired.case_of(size_case(size), seed, rate)] = {
                    name: {TOP1: value - loss} for name, value in at.items()
                }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(noise=1.8),
    "not seen": made_up(small=3.0),
}
