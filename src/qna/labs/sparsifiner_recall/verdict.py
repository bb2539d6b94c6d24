"""When a predictor knew which keys are needed: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.row import Metrics, Verdict, Word
from qna.labs.sparsifiner_recall.choosing import CHOOSERS, LOCAL, PREDICTED, RANDOM
from qna.labs.sparsifiner_recall.training import DENSE

TOP1, RECALL = "train top1", "none recall"
# where the verdict is found: the paper's rate, and what it may lose there
KEEP, LOSS = 0.25, 0.4
RULE = (
    f"At a keep rate of {KEEP:g}. Held: {PREDICTED} keys hold more of the largest weights of dense attention "
    f"than {RANDOM} ones and {LOCAL} ones, and the network that was trained on with them is right more often "
    "than with either, each by more than two standard errors of the mean difference over the seeds; and it "
    f"loses at most {LOSS} points in a hundred of the one that was trained on with all keys. Direction only: "
    f"recall is above both by as much, and accuracy above {RANDOM} in the mean. Else not seen. Other rates "
    "are told and do not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    right, found = at(metrics, KEEP, TOP1), at(metrics, KEEP, RECALL)
    gains = {other: paired.gain(right, PREDICTED, other) for other in (RANDOM, LOCAL, DENSE)}
    recalls = {other: paired.gain(found, PREDICTED, other) for other in (RANDOM, LOCAL)}
    if None in gains.values() or None in recalls.values():
        return Verdict("not seen", f"Figures at a keep rate of {KEEP:g} over 2 seeds are missing.")
    above = {other: gain for other, gain in gains.items() if gain is not None}
    more = {other: gain for other, gain in recalls.items() if gain is not None}
    word: Word = "not seen"
    if all(gain > 2 * error for gain, error in more.values()) and above[RANDOM][0] > 0:
        sure = all(above[other][0] > 2 * above[other][1] for other in (RANDOM, LOCAL))
        word = "held" if sure and above[DENSE][0] >= -LOSS else "direction only"
    recalled = ", ".join(f"{name} {mean(found[name].values()):.1f} %" for name in CHOOSERS)
    told = ", ".join(f"{name} {mean(right[name].values()):.1f} %" for name in (DENSE, *CHOOSERS))
    differences = ", ".join(
        f"{gain:+.2f} above {other} (standard error {error:.2f})" for other, (gain, error) in above.items()
    )
    rest = "; ".join(
        f"at {keep:g} "
        + ", ".join(
            f"{name} {mean(at(metrics, keep, RECALL)[name].values()):.0f} and {mean(values.values()):.1f}"
            for name, values in at(metrics, keep, TOP1).items()
            if name != DENSE
        )
        for keep in rates(metrics)
        if keep != KEEP
    )
    return Verdict(
        word,
        f"At a keep rate of {KEEP:g}, of the largest weights: {recalled}. Right: {told}; {PREDICTED} "
        f"{differences}. Recall and right {rest}. {len(right[PREDICTED])} seeds.",
    )


def at(metrics: Metrics, keep: float, figure: str) -> paired.BySeed:
    """A figure at a keep rate, by seed of every network."""
    cases = {case: figures for case, figures in metrics.items() if case.startswith(f"keep{keep:g}-")}
    return paired.best_of(cases, (DENSE, *CHOOSERS), figure)


def rates(metrics: Metrics) -> list[float]:
    """The keep rates that there are figures of, from the lowest."""
    return sorted({float(case.split("-")[0][4:]) for case in metrics if case.startswith("keep")})


def made_up(
    *, random: float = -5.0, local: float = -2.0, dense: float = 0.2, recalled: float = 30.0
) -> Metrics:
    """Metrics of two seeds: the others so much above what is predicted; its recall above theirs."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for keep in (KEEP, 0.5):
        for seed, noise in enumerate((-0.1, 0.1)):
            others = {RANDOM: random, LOCAL: local}
            case = {PREDICTED: {TOP1: 80 + noise, RECALL: 30 + recalled + noise}, DENSE: {TOP1: 80 + dense}}
            case |= {name: {TOP1: 80 + value, RECALL: 30.0} for name, value in others.items()}
            metrics[paired.case_of(f"keep{keep:g}", seed, 2e-3)] = case
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(dense=3.0),
    "not seen": made_up(recalled=-1.0),
}
