"""When gates took the sink away: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.gated_sink.training import CASE, GATED, NETWORKS, PLAIN
from qna.labs.row import Metrics, Verdict, Word

TOP1, FIRST, LARGEST = "train top1", "none first-token", "none largest-activation"
RULE = (
    f"{GATED} (a gate for each channel, computed from the input) against {PLAIN}. Held: the first token "
    "gets less of the attention and the largest activation is smaller, each by more than two standard "
    "errors of the mean difference over the seeds, and accuracy is no lower, up to one standard error. "
    "Direction only: both are smaller in the mean. Else not seen. The other gates are told and do not "
    "count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    found = {figure: paired.best_of(metrics, NETWORKS, figure) for figure in (TOP1, FIRST, LARGEST)}
    gains = {figure: paired.gain(by_seed, GATED, PLAIN) for figure, by_seed in found.items()}
    right, first, largest = (gains[figure] for figure in (TOP1, FIRST, LARGEST))
    if right is None or first is None or largest is None:
        return Verdict("not seen", f"Figures of {GATED} and {PLAIN} over 2 seeds are missing.")
    word: Word = "not seen"
    if first[0] < 0 and largest[0] < 0:
        sure = all(gain < -2 * error for gain, error in (first, largest)) and right[0] >= -right[1]
        word = "held" if sure else "direction only"
    told = "; ".join(
        f"{name}: first token {mean(found[FIRST][name].values()):.1f} % of the attention, largest activation "
        f"{mean(found[LARGEST][name].values()):.1f}, right {mean(found[TOP1][name].values()):.1f} %"
        for name in NETWORKS
        if name in found[FIRST] and name in found[LARGEST] and name in found[TOP1]
    )
    return Verdict(
        word,
        f"{told}. {GATED.capitalize()} above {PLAIN}: first token {first[0]:+.2f} (standard error "
        f"{first[1]:.2f}), activation {largest[0]:+.2f} ({largest[1]:.2f}), right {right[0]:+.2f} "
        f"({right[1]:.2f}), {len(found[TOP1][GATED])} seeds.",
    )


def made_up(*, first: float = -5.0, largest: float = -20.0, right: float = 0.5) -> Metrics:
    """Metrics of two seeds: gated above plain by so much +-0.1."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        gated = {TOP1: 80 + right + noise, FIRST: 10 + first + noise, LARGEST: 50 + largest + noise}
        plain = {TOP1: 80.0, FIRST: 10.0, LARGEST: 50.0}
        metrics[paired.case_of(CASE, seed, 2e-3)] = {GATED: gated, PLAIN: plain}
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(right=-2.0),
    "not seen": made_up(first=1.0),
}
