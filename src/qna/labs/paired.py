"""Contenders of a laboratory set beside each other seed by seed, each at the learning rate that suits it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import mean, stdev

from qna.labs.row import Metrics

# contender -> seed -> figure
BySeed = dict[str, dict[int, float]]


def best_of(
    metrics: Metrics, names: Iterable[str], figure: str, seed_and_rate: Callable[[str], tuple[int, float]]
) -> BySeed:
    """A figure by seed of each contender that has one, at the rate with its better mean.

    Args:
        metrics: of one run.
        names: of contenders.
        figure: "mode metric", of which more is better.
        seed_and_rate: reads them from a case.
    """
    best: BySeed = {}
    for name in names:
        by_rate: dict[float, dict[int, float]] = {}
        for case, contenders in metrics.items():
            if (found := contenders.get(name, {}).get(figure)) is not None:
                seed, rate = seed_and_rate(case)
                by_rate.setdefault(rate, {})[seed] = found
        if by_rate:
            best[name] = max(by_rate.values(), key=lambda of_seeds: mean(of_seeds.values()))
    return best


def gain(best: BySeed, ours: str, other: str) -> tuple[float, float] | None:
    """By how much `ours` is above `other`, mean over their common seeds, and the standard error.

    None where they have fewer than two.
    """
    mine, its = best.get(ours, {}), best.get(other, {})
    differences = [mine[seed] - its[seed] for seed in mine if seed in its]
    if len(differences) < 2:
        return None
    return mean(differences), stdev(differences) / math.sqrt(len(differences))
