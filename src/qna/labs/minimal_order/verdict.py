"""When fewer matrices cost nothing: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.classifying import ACCURACY
from qna.labs.minimal_order.networks import FULL, MINIMAL, NARROW, NETWORKS
from qna.labs.row import Metrics, Verdict, Word

TOP1, PARAMETERS, MACS = "train top1", "none parameters", "none macs"
# parts of the parameters that must go, and points in a hundred that may
SAVED, LOST = 0.8, 1.0
RULE = (
    f"Each network at its better rate. Held: {MINIMAL} has at most {100 * (1 - SAVED):g} % of the parameters "
    f"of {FULL}, gets at most {LOST:g} point in a hundred less of the held-out images right, and more than "
    f"{NARROW}, which has no fewer parameters, by more than two standard errors of the mean difference over "
    f"the seeds. Direction only: it has as few parameters and is above {NARROW} in the mean. Else not seen. "
    "The form between is told and does not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    best = paired.best_of(metrics, NETWORKS, TOP1)
    counts, macs = (paired.figures_of(metrics, figure) for figure in (PARAMETERS, MACS))
    above, below = (paired.gain(best, MINIMAL, other) for other in (NARROW, FULL))
    if above is None or below is None or not all(name in counts for name in (FULL, MINIMAL, NARROW)):
        return Verdict("not seen", f"Figures of {MINIMAL}, {FULL} and {NARROW} over 2 seeds are missing.")
    few = counts[MINIMAL] <= (1 - SAVED) * counts[FULL] and counts[MINIMAL] <= counts[NARROW]
    word: Word = "not seen"
    if few and above[0] > 0:
        word = "held" if above[0] > 2 * above[1] and below[0] >= -LOST else "direction only"
    told = "; ".join(
        f"{name} {mean(best[name].values()):.2f} % ({counts.get(name, 0):,.0f} parameters, "
        f"{macs.get(name, 0):.2f} million multiply-adds)"
        for name in NETWORKS
        if name in best
    )
    return Verdict(
        word,
        f"Right of the held-out images: {told}. {MINIMAL} {above[0]:+.2f} above {NARROW} (standard error "
        f"{above[1]:.2f}), {below[0]:+.2f} above {FULL} ({below[1]:.2f}), {len(best[MINIMAL])} seeds.",
    )


def made_up(*, narrow: float = -2.0, full: float = 0.5, count: float = 31_000) -> Metrics:
    """Metrics of two seeds: controls by so much +-0.1 above the minimal one, which has `count` parameters."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    counts = dict(zip(NETWORKS, (304_000, 280_000, count, 33_000), strict=True))
    for seed, noise in enumerate((-0.1, 0.1)):
        right = dict(zip(NETWORKS, (full + noise, full, 0.0, narrow + noise), strict=True))
        # the other rate is worse for all
        for rate, loss in ((1e-3, 0.0), (3e-3, 5.0)):
            metrics[paired.case_of(ACCURACY, seed, rate)] = {
                name: {TOP1: 80 + right[name] - loss, PARAMETERS: float(counts[name]), MACS: 4.0}
                for name in NETWORKS
            }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(full=3.0),
    "not seen": made_up(narrow=0.5),
}
