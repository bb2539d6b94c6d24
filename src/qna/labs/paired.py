"""Contenders of a laboratory set beside each other seed by seed, each at the learning rate that suits it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from qna.labs.row import Figure, Metrics
from qna.plots import plot_dots

# contender -> seed -> figure
BySeed = dict[str, dict[int, float]]


def parts_of(
    config: Any, part: Callable[[Any, int, float], list[Figure]]
) -> dict[str, Callable[[], list[Figure]]]:
    """A part for each seed and learning rate of a configuration, told (config, seed, rate)."""
    return {
        f"seed {seed}, rate {rate:g}": partial(part, config, seed, rate)
        for seed in range(config.seed, config.seed + config.seeds)
        for rate in config.rates
    }


def case_of(what: str, seed: int, rate: float) -> str:
    """The case of a seed and a learning rate; `seed_and_rate` reads them back."""
    return f"{what}-seed{seed}-lr{rate:g}"


def seed_and_rate(case: str) -> tuple[int, float]:
    """What `case_of` was told."""
    seed, rate = case.rpartition("-seed")[2].split("-lr", 1)
    return int(seed), float(rate)


def best_of(metrics: Metrics, names: Iterable[str], figure: str) -> BySeed:
    """A figure by seed of each contender that has one, at the rate with its better mean.

    Args:
        metrics: of one run, its cases as `case_of` names them.
        names: of contenders.
        figure: "mode metric", of which more is better.
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


def figures_of(metrics: Metrics, figure: str) -> dict[str, float]:
    """A figure of each contender that has one and is the same in every case, as a number of parameters."""
    return {
        name: figures[figure]
        for contenders in metrics.values()
        for name, figures in contenders.items()
        if figure in figures
    }


def draw(path: Path, best: BySeed, note: str, *, title: str, xlabel: str, digits: int = 2) -> None:
    """Draw a row of dots for each contender, a dot for each seed.

    Args:
        path: of the PNG; an SVG lies beside it.
        best: of all contenders.
        note: below the title.
        title: of the picture.
        xlabel: what is measured, with its unit.
        digits: of the means, after the point.
    """
    plot_dots(
        path,
        [
            {
                "title": "held-out images",
                "dots": [{"name": n, "values": list(by_seed.values())} for n, by_seed in best.items()],
            }
        ],
        title=title,
        note=f"each at its better learning rate; {note}",
        xlabel=xlabel,
        digits=digits,
    )
