"""When the claim about blocks with a halo held: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.classifying import ACCURACY
from qna.labs.halo_blocks.layers import CASE
from qna.labs.halo_blocks.networks import CENTRED, CONTENDERS, HALO, NARROW, WIDE
from qna.labs.paired import BySeed
from qna.labs.row import Metrics, Verdict, Word

TOP1 = "train top1"
COSTS: tuple[str, ...] = ("forward+backward time", "forward+backward memory")
RULE = (
    "Each network counts at the learning rate with its better mean accuracy over the seeds, and of the two "
    "without a halo the better. Held: with a halo the layer takes less time and less memory, "
    f"forward+backward, than with windows centred on each query ({CENTRED}), and the network is above both "
    "that one and those without a halo by more than two standard errors of the mean difference over the "
    "seeds. Direction only: it takes less of both, is above those without a halo, and is not below "
    f"{CENTRED} by more than two standard errors. Else not seen."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    best = best_of(metrics)
    costs = {name: [metrics.get(CASE, {}).get(name, {}).get(cost) for cost in COSTS] for name in CONTENDERS}
    without = max(
        (name for name in (WIDE, NARROW) if name in best), key=lambda n: mean(best[n].values()), default=None
    )
    above_centred = paired.gain(best, HALO, CENTRED)
    above_none = None if without is None else paired.gain(best, HALO, without)
    ratios = [
        theirs / ours for ours, theirs in zip(costs[HALO], costs[CENTRED], strict=True) if ours and theirs
    ]
    if above_centred is None or above_none is None or len(ratios) < len(COSTS):
        return Verdict(
            "not seen", f"Costs of {HALO} and {CENTRED}, or figures of all over 2 seeds, are missing."
        )
    word: Word = "not seen"
    if min(ratios) > 1:
        if all(gained > 2 * error for gained, error in (above_centred, above_none)):
            word = "held"
        elif above_none[0] > 0 and above_centred[0] >= -2 * above_centred[1]:
            word = "direction only"
    told = ", ".join(
        f"{name} {mean(best[name].values()):.2f} % ({-found[0]:+.2f}, standard error {found[1]:.2f})"
        for name in CONTENDERS
        if name != HALO and (found := paired.gain(best, HALO, name)) is not None
    )
    return Verdict(
        word,
        f"Windows centred on each query take {ratios[0]:.2f} times the time and {ratios[1]:.2f} times the "
        f"memory of blocks with a halo, forward+backward; right of the held-out images: {HALO} "
        f"{mean(best[HALO].values()):.2f} %, {told}; {len(best[HALO])} seeds.",
    )


def best_of(metrics: Metrics) -> BySeed:
    """Accuracy by seed of each network, at the rate with its better mean."""
    trained = {case: at for case, at in metrics.items() if case != CASE}
    return paired.best_of(trained, CONTENDERS, TOP1)


def made_up(centred: float = 1.0, none: float = 1.0, *, cost: float = 3.0) -> Metrics:
    """Metrics of two seeds in which a halo is above others by so many points +-0.1, at 1/`cost`."""
    metrics: dict[str, dict[str, dict[str, float]]] = {
        CASE: {name: dict.fromkeys(COSTS, cost if name == CENTRED else 1.0) for name in CONTENDERS}
    }
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for all
        for rate, loss in ((6e-3, 0.0), (1.5e-2, 5.0)):
            right = {HALO: 80.0 + noise, CENTRED: 80.0 - centred, WIDE: 80.0 - none, NARROW: 70.0}
            metrics[paired.case_of(ACCURACY, seed, rate)] = {
                name: {TOP1: value - loss} for name, value in right.items()
            }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(centred=-0.1),
    "not seen": made_up(none=-0.2),
}
