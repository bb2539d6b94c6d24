"""When attention in the later stages served as well as convolution: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.classifying import ACCURACY
from qna.labs.paired import BySeed
from qna.labs.row import Metrics, Verdict, Word
from qna.labs.sasa_stages.training import CONTROL, EARLY, LATE, NETWORKS

TOP1, PARAMETERS = "train top1", "none parameters"
RULE = (
    "Every network counts at the learning rate with its better mean accuracy over the seeds. Held: "
    f"{LATE} has fewer parameters than {CONTROL}, its mean accuracy is no lower, up to one standard error of "
    f"the mean difference over the seeds, and it is above that of {EARLY}. Direction only: fewer parameters, "
    f"and above {EARLY} alone, or no lower than {CONTROL} alone. Else not seen."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    best = best_of(metrics)
    against = {name: difference(best, name) for name in best if name != LATE}
    control, early = against.get(CONTROL), against.get(EARLY)
    if control is None or early is None:
        return Verdict("not seen", f"Figures of {LATE}, {CONTROL} and {EARLY} over 2 seeds are missing.")
    counts = paired.figures_of(metrics, PARAMETERS)
    sizes = {name: counts.get(name, 0.0) for name in (LATE, CONTROL)}
    smaller = 0 < sizes[LATE] < sizes[CONTROL]
    as_good, above_early = control[0] >= -control[1], early[0] > 0
    word: Word = "not seen"
    if smaller and (as_good or above_early):
        word = "held" if as_good and above_early else "direction only"
    told = ", ".join(
        f"{name} {_mean(best, name):.2f} ({-found[0]:+.2f}, standard error {found[1]:.2f})"
        for name, found in against.items()
        if found is not None
    )
    return Verdict(
        word,
        f"{LATE} gets {_mean(best, LATE):.2f} % right with {sizes[LATE]:,.0f} parameters, {CONTROL} has "
        f"{sizes[CONTROL]:,.0f}; {told}; {len(best[LATE])} seeds.",
    )


def best_of(metrics: Metrics) -> BySeed:
    """Accuracy by seed of each network, at the rate with its better mean."""
    return paired.best_of(metrics, NETWORKS, TOP1)


def difference(best: BySeed, name: str) -> tuple[float, float] | None:
    """By how much late attention is above a network, mean over the seeds, and its standard error."""
    return paired.gain(best, LATE, name)


def _mean(best: BySeed, name: str) -> float:
    return mean(best[name].values())


def made_up(control: float = 0.5, early: float = 1.0, *, parameters: float = 90_000.0) -> Metrics:
    """Metrics of two seeds in which late attention is above two others by so many per cent, +-0.1."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for all
        for rate, loss in ((4e-3, 0.0), (1e-2, 3.0)):
            right = {LATE: 80.0 + noise, CONTROL: 80.0 - control, EARLY: 80.0 - early}
            sizes = {LATE: parameters, CONTROL: 100_000.0, EARLY: 99_000.0}
            metrics[paired.case_of(ACCURACY, seed, rate)] = {
                name: {TOP1: value - loss, PARAMETERS: sizes[name]} for name, value in right.items()
            }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(control=-0.5),
    "not seen": made_up(control=-0.5, early=-0.2),
}
