"""When gates took the sink away and bore high rates: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.gated_causal.training import CASE, GATED, MIXERS, PLAIN
from qna.labs.paired import BySeed
from qna.labs.row import Metrics, Verdict, Word

BITS, FIRST, LARGEST = "train bits-per-byte", "none first-token", "none largest-activation"
# what plain attention has to lose at the highest rate, of its bits per byte, for rates to be judged
LOST = 0.02
RULE = (
    f"{GATED} (a gate for each channel) against {PLAIN}, by bits per byte of held-out text. The base rate is "
    f"that at which {PLAIN} needs the fewest in the mean. Held: at the base rate the first token gets less "
    "of the attention and the largest activation is smaller, each by more than two standard errors of the "
    "mean difference over the seeds, and bits per byte are no more, up to one; the highest rate is above the "
    f"base rate and costs {PLAIN} at least {LOST:.0%} more bits than the base rate; and of bits more than at "
    f"the base rate it costs {GATED} less than {PLAIN} by more than two standard errors. Direction only: at "
    f"the highest rate {GATED} needs fewer bits than {PLAIN} in the mean, and at the base rate the first "
    "token gets less or the largest activation is smaller. Else not seen. The gate for each head is told and "
    "does not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    rates = sorted({paired.seed_and_rate(case)[1] for case in metrics})
    plain = {rate: mean(v.values()) for rate in rates if (v := by_seed(metrics, rate, BITS).get(PLAIN))}
    if len(plain) < 2:
        return Verdict("not seen", f"Figures of {PLAIN} at 2 rates are missing.")
    base, highest = min(plain, key=lambda rate: plain[rate]), max(rates)
    at_base = {figure: by_seed(metrics, base, figure) for figure in (BITS, FIRST, LARGEST)}
    gains = {figure: paired.gain(found, GATED, PLAIN) for figure, found in at_base.items()}
    bits, first, largest = (gains[figure] for figure in (BITS, FIRST, LARGEST))
    high = by_seed(metrics, highest, BITS)
    above = paired.gain(high, GATED, PLAIN)
    more = paired.gain(_more(high, at_base[BITS]), GATED, PLAIN)
    if bits is None or first is None or largest is None or above is None or more is None:
        return Verdict("not seen", f"Figures of {GATED} and {PLAIN} over 2 seeds are missing.")
    word: Word = "not seen"
    if above[0] < 0 and (first[0] < 0 or largest[0] < 0):
        calm = all(gain < -2 * error for gain, error in (first, largest)) and bits[0] <= bits[1]
        borne = highest > base and more[0] < -2 * more[1] and plain[highest] >= (1 + LOST) * plain[base]
        word = "held" if calm and borne else "direction only"
    told = "; ".join(
        f"{name}: first token {mean(at_base[FIRST][name].values()):.1f} % of the attention, largest "
        f"activation {mean(at_base[LARGEST][name].values()):.1f}, bits per byte "
        + ", ".join(
            f"{mean(at[name].values()):.3f} at {rate:g}"
            for rate in rates
            if name in (at := by_seed(metrics, rate, BITS))
        )
        for name in MIXERS
        if name in at_base[FIRST] and name in at_base[LARGEST]
    )
    return Verdict(
        word,
        f"{told[0].upper()}{told[1:]}. The base rate is {base:g}. {GATED.capitalize()} above {PLAIN} there: "
        f"first token {first[0]:+.2f} (standard error {first[1]:.2f}), activation {largest[0]:+.2f} "
        f"({largest[1]:.2f}), bits {bits[0]:+.3f} ({bits[1]:.3f}); at {highest:g} bits {above[0]:+.3f} "
        f"({above[1]:.3f}), and of what that rate costs {more[0]:+.3f} ({more[1]:.3f}), "
        f"{len(at_base[BITS][GATED])} seeds.",
    )


def by_seed(metrics: Metrics, rate: float, figure: str) -> BySeed:
    """A figure of each contender that has one at a rate."""
    at_rate = {case: found for case, found in metrics.items() if paired.seed_and_rate(case)[1] == rate}
    return paired.best_of(at_rate, MIXERS, figure)


def _more(high: BySeed, base: BySeed) -> BySeed:
    return {
        name: {seed: value - base[name][seed] for seed, value in found.items() if seed in base[name]}
        for name, found in high.items()
        if name in base
    }


def made_up(
    *, first: float = -5.0, largest: float = -20.0, high: float = -0.5, lost: float = 1.0, bits: float = 0.0
) -> Metrics:
    """Metrics of two seeds: gated above plain by so much +-0.01, at the highest rate by `high`, where plain
    needs `lost` more than at the base rate."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, by in enumerate((-0.01, 0.01)):
        for rate, more, gain, noise in (
            (1e-3, 0.2, bits, by), (3e-3, 0.0, bits, by), (1e-2, lost, high, 2 * by),
        ):  # fmt: skip
            gated = {
                BITS: 3 + more + gain + noise, FIRST: 10 + first + noise, LARGEST: 50 + largest + noise,
            }  # fmt: skip
            plain = {BITS: 3 + more, FIRST: 10.0, LARGEST: 50.0}
            metrics[paired.case_of(CASE, seed, rate)] = {GATED: gated, PLAIN: plain}
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(first=1.0),
    "not seen": made_up(high=0.5),
}
