"""When the claim about dilated neighbourhoods held: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.classifying import ACCURACY
from qna.labs.dinat_context.networks import CONTENDERS, DILATED, PLAIN, WIDER
from qna.labs.paired import BySeed
from qna.labs.row import Metrics, Verdict, Word

RULE = (
    "Each network counts at the learning rate with its better mean accuracy over the seeds. Held: with every "
    "second neighbourhood dilated it is above the same network without dilation by more than two standard "
    "errors of the mean difference over the seeds, at no more parameters and multiply-adds. Direction only: "
    "it is above, at no more of either. Else not seen. What larger neighbourhoods reach is told and does not "
    "count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    best = best_of(metrics)
    found = paired.gain(best, DILATED, PLAIN)
    if found is None:
        return Verdict("not seen", f"Figures of {DILATED} and {PLAIN} over 2 seeds are missing.")
    difference, error = found
    dearer = [
        kind
        for kind in ("parameters", "macs")
        if (figures := paired.figures_of(metrics, f"none {kind}"))
        and figures.get(DILATED, 0) > figures.get(PLAIN, 0)
    ]
    word: Word = "not seen"
    if difference > 0 and not dearer:
        word = "held" if difference > 2 * error else "direction only"
    macs = paired.figures_of(metrics, "none macs")

    def told(name: str) -> str:
        cost = f", {macs[name]:.2f} million multiply-adds" if name in macs else ""
        return f"{name} {mean(best[name].values()):.2f} %{cost}"

    wider = f"; {told(WIDER)}" if WIDER in best else ""
    return Verdict(
        word,
        f"Right of the held-out images: {told(DILATED)}; {told(PLAIN)} (difference {difference:+.2f}, "
        f"standard error {error:.2f}, {len(best[DILATED])} seeds){wider}.",
    )


def best_of(metrics: Metrics) -> BySeed:
    """Accuracy by seed of each network, at the rate with its better mean."""
    return paired.best_of(metrics, CONTENDERS, "train top1")


def made_up(above: float, *, macs: float = 3.0) -> Metrics:
    """Metrics of two seeds in which dilation is above by so many points +-0.1."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for all
        for rate, loss in ((2e-3, 0.0), (4e-3, 5.0)):
            right = {DILATED: 80.0 + above + noise, PLAIN: 80.0, WIDER: 81.0}
            cost = {DILATED: macs, PLAIN: 3.0, WIDER: 4.0}
            metrics[paired.case_of(ACCURACY, seed, rate)] = {
                name: {"train top1": right[name] - loss, "none macs": cost[name]} for name in CONTENDERS
            }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(1.0),
    "direction only": made_up(0.15),
    "not seen": made_up(-0.2),
}
