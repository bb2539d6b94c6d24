"""When focal modulation followed shifts and was as accurate: the rule, on figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

from qna.labs import paired
from qna.labs.focalnet_shift.networks import CONVOLUTION, FOCAL, NETWORKS, WINDOWS
from qna.labs.focalnet_shift.training import SHIFTED
from qna.labs.paired import BySeed
from qna.labs.row import Metrics, Verdict, Word

TOP1, SAME, CHANGE, MOVED = "train top1", "none same-answer", "none map-change", "none moved-top1"
RULE = (
    "Every network counts at the learning rate with its better mean accuracy on images in their middle, over "
    f"the seeds; {CONVOLUTION} is told and does not count. {FOCAL} may take no more multiply-adds than "
    f"{WINDOWS}. Held: on every seed its last map changes less, beside moving, when an image moves by one of "
    "the map's positions; it gives the same answer to a moved image more often, by more than two standard "
    "errors of the mean difference; and its accuracy is no lower, up to one standard error. Direction only: "
    "its map changes less on every seed, and one of the other two is so. Else not seen."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    right, same, change = (at_best_rate(metrics, figure) for figure in (TOP1, SAME, CHANGE))
    accuracy, answers = (paired.gain(by_seed, FOCAL, WINDOWS) for by_seed in (right, same))
    if accuracy is None or answers is None or not change.get(FOCAL) or not change.get(WINDOWS):
        return Verdict("not seen", f"Figures of {FOCAL} and {WINDOWS} over 2 seeds are missing.")
    costs = {name: _macs(metrics, name) for name in NETWORKS}
    follows = all(
        change[FOCAL][seed] < at for seed, at in change[WINDOWS].items() if seed in change[FOCAL]
    ) and costs.get(FOCAL, 0) <= costs.get(WINDOWS, 0)
    steadier, as_good = answers[0] > 2 * answers[1], accuracy[0] >= -accuracy[1]
    word: Word = "not seen"
    if follows and (steadier or as_good):
        word = "held" if steadier and as_good else "direction only"
    told = "; ".join(
        f"{name}: map changes {mean(change[name].values()):.1f} % of its spread, same answer "
        f"{mean(same[name].values()):.1f} %, right {mean(right[name].values()):.1f} %, "
        f"{costs[name]:.2f} million multiply-adds"
        for name in NETWORKS
        if name in change
    )
    return Verdict(
        word,
        f"{told}. {FOCAL} above {WINDOWS}: same answer {answers[0]:+.2f} (standard error {answers[1]:.2f}), "
        f"right {accuracy[0]:+.2f} (standard error {accuracy[1]:.2f}), {len(right[FOCAL])} seeds.",
    )


def at_best_rate(metrics: Metrics, figure: str) -> BySeed:
    """A figure by seed of each network, at the rate at which its mean accuracy is better."""
    found: BySeed = {}
    for name in NETWORKS:
        by_rate: dict[float, dict[int, Mapping[str, float]]] = {}
        for case, contenders in metrics.items():
            if TOP1 in (figures := contenders.get(name, {})):
                seed, rate = paired.seed_and_rate(case)
                by_rate.setdefault(rate, {})[seed] = figures
        if by_rate:
            best = max(by_rate.values(), key=lambda of_seeds: mean(f[TOP1] for f in of_seeds.values()))
            found[name] = {seed: figures[figure] for seed, figures in best.items() if figure in figures}
    return found


def _macs(metrics: Metrics, name: str) -> float:
    return next((c[name]["none macs"] for c in metrics.values() if "none macs" in c.get(name, {})), 0.0)


def made_up(*, same: float = 5.0, right: float = 0.5, change: float = 10.0, macs: float = 9.0) -> Metrics:
    """Metrics of two seeds: focal modulation above windows by so much +-0.1, its map changing so much."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for all
        for rate, loss in ((4e-3, 0.0), (1e-2, 3.0)):
            focal = {TOP1: 80.0 + right + noise, SAME: 80.0 + same + noise, CHANGE: change, MOVED: 75.0}
            others = {TOP1: 80.0, SAME: 80.0, CHANGE: 50.0, MOVED: 70.0}
            metrics[paired.case_of(SHIFTED, seed, rate)] = {
                name: {**figures, TOP1: figures[TOP1] - loss, "none macs": cost}
                for name, figures, cost in (
                    (FOCAL, focal, macs),
                    (WINDOWS, others, 10.0),
                    (CONVOLUTION, others, 9.0),
                )
            }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(right=-1.0),
    "not seen": made_up(change=60.0),
}
