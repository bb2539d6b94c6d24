"""When attention knew which tokens could go: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.evit_keep.choosing import ATTENDED, CHOOSERS, RANDOM, UNATTENDED
from qna.labs.evit_keep.training import DENSE, SHORT, TIME
from qna.labs.row import Metrics, Verdict, Word

TOP1 = "train top1"
# where the verdict is found: the paper drops three tokens in ten, in each of three blocks
KEEP = 0.7
RULE = (
    f"At a keep rate of {KEEP:g} in each of three blocks. Held: the network that "
    f"keeps what is {ATTENDED} is right more often than those that keep {RANDOM} tokens and the "
    f"{UNATTENDED}, each by more than two standard errors of the mean difference over the seeds; it loses "
    "at most one point in a hundred of the whole network's accuracy; and it takes at most three quarters "
    "of its time. Direction only: it is above both others, and takes less time than the whole network. "
    "Else not seen. Other rates are told and do not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    right = at(metrics, KEEP)
    above = {other: paired.gain(right, ATTENDED, other) for other in (RANDOM, UNATTENDED, DENSE)}
    times = {
        name: figures["forward time"]
        for name, figures in metrics.get(TIME, {}).items()
        if "forward time" in figures
    }
    whole, short = times.get(DENSE), times.get(f"{SHORT} {KEEP:g}")
    if None in above.values() or not whole or not short:
        return Verdict("not seen", f"Figures at a keep rate of {KEEP:g} over 2 seeds, or times, are missing.")
    gains = {other: gain for other, gain in above.items() if gain is not None}
    others = [gains[RANDOM], gains[UNATTENDED]]
    word: Word = "not seen"
    if all(gain > 0 for gain, _ in others) and short < whole:
        sure = all(gain > 2 * error for gain, error in others)
        word = "held" if sure and gains[DENSE][0] >= -1 and short <= 0.75 * whole else "direction only"
    told = ", ".join(f"{name} {mean(right[name].values()):.1f} %" for name in (DENSE, *CHOOSERS))
    differences = ", ".join(
        f"{gain:+.2f} above {other} (standard error {error:.2f})" for other, (gain, error) in gains.items()
    )
    rest = "; ".join(
        f"at {keep:g} "
        + ", ".join(
            f"{name} {mean(values.values()):.1f}"
            for name, values in at(metrics, keep).items()
            if name != DENSE
        )
        for keep in rates(metrics)
        if keep != KEEP
    )
    return Verdict(
        word,
        f"Right at a keep rate of {KEEP:g}: {told}; {ATTENDED} {differences}; {short / whole:.2f} of the "
        f"whole network's time. {rest.capitalize()}. {len(right[ATTENDED])} seeds.",
    )


def at(metrics: Metrics, keep: float) -> paired.BySeed:
    """What was right at a keep rate, by seed of every network."""
    cases = {case: figures for case, figures in metrics.items() if case.startswith(f"keep{keep:g}-")}
    return paired.best_of(cases, (DENSE, *CHOOSERS), TOP1)


def rates(metrics: Metrics) -> list[float]:
    """The keep rates that there are figures of, from the highest."""
    return sorted(
        {float(case.split("-")[0][4:]) for case in metrics if case.startswith("keep")}, reverse=True
    )


def made_up(*, random: float = -3.0, least: float = -20.0, dense: float = 0.5, time: float = 0.6) -> Metrics:
    """Metrics of two seeds: controls and the whole network by so much above what is attended."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for keep in (KEEP, 0.5):
        for seed, noise in enumerate((-0.1, 0.1)):
            right = {DENSE: dense, ATTENDED: noise, RANDOM: random, UNATTENDED: least}
            metrics[paired.case_of(f"keep{keep:g}", seed, 2e-3)] = {
                name: {TOP1: 80 + value} for name, value in right.items()
            }
    metrics[TIME] = {DENSE: {"forward time": 10.0}, f"{SHORT} {KEEP:g}": {"forward time": 10 * time}}
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(dense=3.0),
    "not seen": made_up(random=1.0),
}
