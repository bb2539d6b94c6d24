"""When chosen prompts adapted a network better: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.row import Metrics, Verdict, Word
from qna.labs.tcpa_transfer.training import ALL, CASE, CHOSEN, PROBE, ROLES

TOP1, TRAINED = "train top1", "none trained"
NAMES = (CHOSEN, ROLES, ALL, PROBE)
RULE = (
    f"Every contender counts at the learning rate with its better mean over the seeds. Held: {CHOSEN} names "
    f"more held-out digits right than {ALL} and than the {PROBE}, each by more than two standard errors of "
    "the mean difference over the seeds. Direction only: more than both in the mean. Else not seen. What the "
    f"others reach, and that {CHOSEN} trains keys beside as many prompts, is told and does not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    best = paired.best_of(metrics, NAMES, TOP1)
    gains = {other: paired.gain(best, CHOSEN, other) for other in (ALL, PROBE)}
    found = [gain for gain in gains.values() if gain is not None]
    if len(found) < len(gains):
        return Verdict("not seen", f"Figures of {CHOSEN}, {ALL} and {PROBE} over 2 seeds are missing.")
    word: Word = "not seen"
    if all(gain > 0 for gain, _ in found):
        word = "held" if all(gain > 2 * error for gain, error in found) else "direction only"
    trained = paired.figures_of(metrics, TRAINED)
    told = ", ".join(
        f"{name} {mean(best[name].values()):.1f} %"
        + (f" ({trained[name]:,.0f} numbers trained)" if name in trained else "")
        for name in NAMES
        if name in best
    )
    differences = ", ".join(
        f"{gain[0]:+.2f} against {other} (standard error {gain[1]:.2f})"
        for other, gain in gains.items()
        if gain
    )
    return Verdict(word, f"Held-out digits right: {told}; {CHOSEN} {differences}; {len(best[CHOSEN])} seeds.")


def made_up(*, control: float = -3.0, probe: float = -10.0, noise: float = 0.1) -> Metrics:
    """Metrics of two seeds: the control and the classifier alone so much above what is chosen."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, sign in enumerate((-1, 1)):
        # the other rate is worse for all
        for rate, loss in ((5e-3, 0.0), (2e-2, 5.0)):
            right = {CHOSEN: sign * noise, ALL: control, PROBE: probe}
            metrics[paired.case_of(CASE, seed, rate)] = {
                name: {TOP1: 90 + value - loss, TRAINED: 1000.0} for name, value in right.items()
            }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(noise=4.0),
    "not seen": made_up(control=1.0),
}
