"""When chosen heads were as good as all: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.moh_heads.choosing import FIXED, KINDS
from qna.labs.moh_heads.training import PLAIN, name_of
from qna.labs.row import Metrics, Verdict, Word

TOP1, BUSIEST, COMPUTED = "train top1", "none busiest", "none computed"
# where the verdict is found
PART = 0.75
OURS, UNBALANCED, CONTROL = (name_of(kind, PART) for kind in KINDS)
RULE = (
    f"With {PART:.0%} of the heads. Held: the network whose tokens choose is right no less often than "
    f"the one with all heads, up to one standard error of the mean difference over the seeds, and more "
    "often than the one with as many fixed heads by more than two; and its busiest head is less busy than "
    "without the balance loss, by more than two. Direction only: it is above fixed heads, and its busiest "
    "head less busy, in the mean. Else not seen. Other parts of the heads are told and do not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    names = names_in(metrics)
    found = {figure: paired.best_of(metrics, names, figure) for figure in (TOP1, BUSIEST, COMPUTED)}
    right, busiest = found[TOP1], found[BUSIEST]
    above_all, above_fixed = (paired.gain(right, OURS, other) for other in (PLAIN, CONTROL))
    evener = paired.gain(busiest, OURS, UNBALANCED)
    if above_all is None or above_fixed is None or evener is None:
        return Verdict("not seen", f"Figures with {PART:.0%} of the heads over 2 seeds are missing.")
    word: Word = "not seen"
    if above_fixed[0] > 0 and evener[0] < 0:
        sure = above_fixed[0] > 2 * above_fixed[1] and evener[0] < -2 * evener[1]
        word = "held" if sure and above_all[0] >= -above_all[1] else "direction only"
    told = ", ".join(f"{name} {mean(of_seeds.values()):.1f} %" for name, of_seeds in right.items())
    uneven = ", ".join(
        f"{name} {mean(of_seeds.values()):.2f} of even use and {mean(found[COMPUTED][name].values()):.0f} % "
        "of the heads computed for an image"
        for name, of_seeds in busiest.items()
        if name in found[COMPUTED]
    )
    return Verdict(
        word,
        f"Right: {told}. {OURS.capitalize()}: {above_all[0]:+.2f} above {PLAIN} (standard error "
        f"{above_all[1]:.2f}), {above_fixed[0]:+.2f} above {CONTROL} ({above_fixed[1]:.2f}). Busiest head: "
        f"{uneven}; the balance loss changes it by {evener[0]:+.2f} ({evener[1]:.2f}). {len(right[OURS])} "
        "seeds.",
    )


def parts_in(metrics: Metrics) -> list[float]:
    """The parts of the heads that there are figures of, from the largest."""
    names = {name for contenders in metrics.values() for name in contenders if name.startswith(f"{FIXED} ")}
    return sorted((float(name.rpartition(" ")[2]) for name in names), reverse=True)


def names_in(metrics: Metrics) -> list[str]:
    """Networks that may have been trained, in the order in which they are told."""
    return [PLAIN, *(name_of(kind, part) for part in parts_in(metrics) for kind in KINDS)]


def made_up(*, plain: float = 0.0, fixed: float = -2.0, busy: float = 0.5) -> Metrics:
    """Metrics of two seeds: the others above ours by so much, and busier without the balance loss."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        metrics[paired.case_of("heads", seed, 2e-3)] = {
            PLAIN: {TOP1: 80 + plain},
            OURS: {TOP1: 80 + noise, BUSIEST: 1.2, COMPUTED: 100.0},
            UNBALANCED: {TOP1: 80.0, BUSIEST: 1.2 + busy + noise, COMPUTED: 90.0},
            CONTROL: {TOP1: 80 + fixed},
        }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(plain=1.0),
    "not seen": made_up(fixed=1.0),
}
