"""When a Terminator converged faster than a residual network of its size: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.paired import BySeed
from qna.labs.row import Metrics, Verdict, Word
from qna.labs.terminator_convergence.networks import (
    NETWORKS,
    OPTIMIZERS,
    RESIDUAL,
    TERMINATOR_NET,
    contender,
)
from qna.labs.terminator_convergence.training import CURVES

FIRST, MEAN, LAST, CHANGE = "train first-epoch", "train mean-of-epochs", "train top1", "none stored-change"
SIZE = "none parameters"
# how much larger a Terminator may be
MARGIN = 1.1
RULE = (
    "Each network counts by the optimiser, and at the rate, with its better mean, over the seeds, for each "
    f"figure by itself. Held: {TERMINATOR_NET} has no more than {MARGIN} times the parameters of {RESIDUAL}, "
    "and is above it on held-out images after the first epoch, and in the mean over all epochs, each by more "
    "than two standard errors of the difference by seed; and logits of every trained one stay the same bit "
    "for bit when its hyper-kernels are stored. Direction only: one of the two figures is so, and the other "
    "not below by more than two standard errors. Else not seen."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    first, means = (best(metrics, figure) for figure in (FIRST, MEAN))
    gains = [paired.gain(found, TERMINATOR_NET, RESIDUAL) for found in (first, means)]
    early, all_epochs = gains
    if early is None or all_epochs is None:
        return Verdict("not seen", f"Figures of {TERMINATOR_NET} and {RESIDUAL} over 2 seeds are missing.")
    sizes = {name: max(_of(metrics, name, SIZE), default=0.0) for name in NETWORKS}
    changes = _of(metrics, TERMINATOR_NET, CHANGE)
    fair = sizes[TERMINATOR_NET] <= MARGIN * sizes[RESIDUAL]
    alike = bool(changes) and not any(changes)
    above = [gain > 2 * error for gain, error in (early, all_epochs)]
    below = [gain < -2 * error for gain, error in (early, all_epochs)]
    word: Word = "not seen"
    if fair and any(above) and not any(below):
        word = "held" if all(above) and alike else "direction only"
    last = best(metrics, LAST)
    told = "; ".join(
        f"{name}, {sizes[name]:,.0f} parameters: {mean(first[name].values()):.1f} % after one epoch, "
        f"{mean(means[name].values()):.1f} % in the mean, {mean(last[name].values()):.1f} % at the end"
        for name in NETWORKS
    )
    stored = "bit for bit the same" if alike else f"changed by up to {max(changes, default=float('nan')):.1e}"
    return Verdict(
        word,
        f"{told}. {TERMINATOR_NET} above {RESIDUAL}: {early[0]:+.1f} (standard error {early[1]:.1f}) after "
        f"one epoch, {all_epochs[0]:+.1f} ({all_epochs[1]:.1f}) in the mean, {len(first[RESIDUAL])} seeds. "
        f"With stored hyper-kernels logits are {stored}.",
    )


def best(metrics: Metrics, figure: str) -> BySeed:
    """A figure by seed of each network, by the optimiser and rate with its better mean."""
    found: BySeed = {}
    for network in NETWORKS:
        by_optimizer = paired.best_of(metrics, [contender(network, o) for o in OPTIMIZERS], figure).values()
        if by_optimizer:
            found[network] = max(by_optimizer, key=lambda of_seeds: mean(of_seeds.values()))
    return found


def _of(metrics: Metrics, network: str, figure: str) -> list[float]:
    names = {contender(network, o) for o in OPTIMIZERS}
    return [
        figures[figure]
        for contenders in metrics.values()
        for name, figures in contenders.items()
        if name in names and figure in figures
    ]


def made_up(*, early: float = 10.0, late: float = 6.0, change: float = 0.0) -> Metrics:
    """Figures of three seeds in which Terminator is so far above; by AdamW all are 5 lower."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed in range(3):
        noise = 0.3 * (seed - 1)
        case: dict[str, dict[str, float]] = {}
        for optimizer, below in zip(OPTIMIZERS, (5.0, 0.0), strict=True):
            case[contender(RESIDUAL, optimizer)] = {
                FIRST: 50.0 - below,
                MEAN: 60.0 - below,
                LAST: 70.0 - below,
                SIZE: 1000.0,
            }
            case[contender(TERMINATOR_NET, optimizer)] = {
                FIRST: 50.0 + early + noise - below,
                MEAN: 60.0 + late + noise - below,
                LAST: 70.0 - below,
                SIZE: 1050.0,
                CHANGE: change,
            }
        metrics[paired.case_of(CURVES, seed, 1e-3)] = case
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(late=0.0),
    "not seen": made_up(early=-5.0),
}
