"""When sinks and fewer shifted heads were worth it: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.row import Metrics, Verdict, Word
from qna.labs.sinklora_context.leak import CHANCE, FULL_BITS, GROUPS, LEAKING, MOVED, OWN_BITS
from qna.labs.sinklora_context.training import BITS, CASE, FULL, NONE, S2, SF, WAYS

# of full attention's gain, that the paper says SF reaches
SHARE = 0.92
RULE = (
    f"Bits per byte of held-out text at the long context, by full attention, over the seeds. A way's share "
    f"is ({NONE} - way) / ({NONE} - {FULL}), {NONE} being the better of positions as they were and "
    f"interpolated. Held: {SF}'s mean share is {SHARE:.0%} or more, and {SF} is below {S2} by more than two "
    f"standard errors of the mean difference. Direction only: {SF} is below {S2} in the mean, and its share "
    f"above 0. Else, and where {FULL} gains nothing, not seen. The wrapped form and the leak are told and do "
    "not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    text = {case: found for case, found in metrics.items() if case.startswith(f"{CASE}-seed")}
    best = paired.best_of(text, (NONE, *WAYS), BITS)
    above = paired.gain(best, SF, S2)
    if above is None or NONE not in best or FULL not in best:
        return Verdict("not seen", f"Figures of {NONE}, {FULL}, {S2} and {SF} over 2 seeds are missing.")
    means = {name: mean(by_seed.values()) for name, by_seed in best.items()}
    whole = means[NONE] - means[FULL]
    told = ", ".join(f"{name} {bits:.4f}" for name, bits in means.items())
    if whole <= 0:
        return Verdict("not seen", f"Bits per byte: {told}; {FULL} gains nothing.{_leak(metrics)}")
    shares = {name: (means[NONE] - means[name]) / whole for name in WAYS if name in means}
    word: Word = "not seen"
    if above[0] < 0 and shares[SF] > 0:
        word = "held" if shares[SF] >= SHARE and above[0] < -2 * above[1] else "direction only"
    of_full = ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if name != FULL)
    return Verdict(
        word,
        f"Bits per byte: {told}. Of {FULL}'s gain: {of_full}. {SF} above {S2}: {above[0]:+.4f} (standard "
        f"error {above[1]:.4f}, {len(best[SF])} seeds).{_leak(metrics)}",
    )


def _leak(metrics: Metrics) -> str:
    """A sentence on the leak, where it was asked for."""
    cases = [found for case, found in metrics.items() if case.startswith("leak-seed")]
    whole = [found for found in cases if {LEAKING, GROUPS} <= set(found)]
    if not whole:
        return ""

    def told(name: str) -> str:
        moved, own, full = (
            mean(found[name].get(figure, float("nan")) for found in whole)
            for figure in (MOVED, OWN_BITS, FULL_BITS)
        )
        return f"{name} {own:.2f} as trained and {full:.2f} by full attention, logits move by {moved:.2g}"

    return (
        f" Symbols that chance alone says, {CHANCE:g} bits each, when the end of the string repeats them: "
        f"{told(LEAKING)}; {told(GROUPS)}."
    )


def made_up(*, sf: float = 1.701, s2: float = 1.72, full: float = 1.70, none: float = 2.0) -> Metrics:
    """Metrics of two seeds, each 0.001 off its mean."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-1e-3, 1e-3)):
        bits = {NONE: none, FULL: full, S2: s2, SF: sf + noise}
        metrics[paired.case_of(CASE, seed, 1e-3)] = {name: {BITS: each} for name, each in bits.items()}
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(sf=1.75, s2=1.8),
    "not seen": made_up(sf=1.73),
}
