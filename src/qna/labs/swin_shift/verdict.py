"""When the claim about shifted windows held: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.classifying import ACCURACY
from qna.labs.paired import BySeed
from qna.labs.row import Metrics, Verdict, Word
from qna.labs.swin_shift.networks import CONTENDERS, SHIFTED, UNSHIFTED, WHOLE

TOP1 = "train top1"
RULE = (
    "Each network counts at the learning rate with its better mean accuracy over the seeds. Held: with every "
    "second block's windows shifted it is above the same network without shifts by more than two standard "
    "errors of the mean difference over the seeds, at no more parameters and multiply-adds. Direction only: "
    "it is above, at no more of either. Else not seen. What windows as large as the map reach is told and "
    "does not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    best = best_of(metrics)
    found = paired.gain(best, SHIFTED, UNSHIFTED)
    if found is None:
        return Verdict("not seen", f"Figures of {SHIFTED} and {UNSHIFTED} over 2 seeds are missing.")
    difference, error = found
    costs = [paired.figures_of(metrics, f"none {kind}") for kind in ("parameters", "macs")]
    dearer = any(cost.get(SHIFTED, 0) > cost.get(UNSHIFTED, 0) for cost in costs)
    word: Word = "not seen"
    if difference > 0 and not dearer:
        word = "held" if difference > 2 * error else "direction only"
    macs = costs[1]

    def told(name: str) -> str:
        cost = f", {macs[name]:.2f} million multiply-adds" if name in macs else ""
        return f"{name} {mean(best[name].values()):.2f} %{cost}"

    whole = f"; {told(WHOLE)}" if WHOLE in best else ""
    return Verdict(
        word,
        f"Right of the held-out images: {told(SHIFTED)}; {told(UNSHIFTED)} (difference {difference:+.2f}, "
        f"standard error {error:.2f}, {len(best[SHIFTED])} seeds){whole}.",
    )


def best_of(metrics: Metrics) -> BySeed:
    """Accuracy by seed of each network, at the rate with its better mean."""
    return paired.best_of(metrics, CONTENDERS, TOP1)


def made_up(above: float, *, macs: float = 3.0) -> Metrics:
    """Metrics of two seeds in which shifts are above by so many points +-0.1."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for all
        for rate, loss in ((2e-3, 0.0), (6e-3, 5.0)):
            right = {SHIFTED: 80.0 + above + noise, UNSHIFTED: 80.0, WHOLE: 81.0}
            cost = {SHIFTED: macs, UNSHIFTED: 3.0, WHOLE: 9.0}
            metrics[paired.case_of(ACCURACY, seed, rate)] = {
                name: {TOP1: right[name] - loss, "none macs": cost[name]} for name in CONTENDERS
            }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(1.0),
    "direction only": made_up(0.15),
    "not seen": made_up(-0.2),
}
