"""When core tokens saved time and memory, and cost no text: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.cca_context.networks import CORES, FULL, NETWORKS, SINKS, WINDOW
from qna.labs.cca_context.times import case_at
from qna.labs.cca_context.training import CASE
from qna.labs.row import Metrics, Verdict, Word

TIME, STATE = "forward time", "none state"
TUNED, AS_IT_IS = "train bits-per-byte", "none bits-per-byte"
# of full attention's: at most so much of its time and of its cache, and so many of its bits
SHARE, BITS = 0.5, 1.02
RULE = (
    f"{CORES} against {FULL} and, with a cache that is no smaller, against a {WINDOW} and a {SINKS}; bits "
    "per byte of held-out text after all have gone on from the same network for as many steps. Held: at the "
    f"longest prompt {CORES} need at most {SHARE:.0%} of the time until the first token and at most "
    f"{SHARE:.0%} of the cache of {FULL}; their bits per byte are at most {BITS - 1:.0%} more than those of "
    f"{FULL} in the mean over the seeds, and fewer than those of {WINDOW} and of {SINKS} by more than two "
    "standard errors of the mean difference. Direction only: less time and less cache there, and fewer bits "
    f"than {WINDOW} in the mean. Else not seen. What they cost before the further steps is told and does not "
    "count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    lengths = [n for n in lengths_in(metrics) if {FULL, CORES} <= metrics[case_at(n)].keys()]
    text = {case: found for case, found in metrics.items() if case.startswith(f"{CASE}-")}
    bits = paired.best_of(text, NETWORKS, TUNED)
    above = {name: paired.gain(bits, CORES, name) for name in NETWORKS if name != CORES}
    full, window, sinks = (above[name] for name in (FULL, WINDOW, SINKS))
    if not lengths or full is None or window is None or sinks is None:
        return Verdict("not seen", "Figures of prompts, and of text over 2 seeds, are missing.")
    longest = metrics[case_at(lengths[-1])]
    time, cache = (longest[CORES][figure] / longest[FULL][figure] for figure in (TIME, STATE))
    cost = mean(bits[CORES].values()) / mean(bits[FULL].values())
    word: Word = "not seen"
    if time < 1 and cache < 1 and window[0] < 0:
        sure = all(gain < -2 * error for gain, error in (window, sinks))
        word = "held" if max(time, cache) <= SHARE and cost <= BITS and sure else "direction only"
    told = "; ".join(
        f"at {n:,} positions "
        + ", ".join(
            f"{name} {found[TIME]:,.0f} ms and {found[STATE] / 2**20:.1f} MiB"
            for name in NETWORKS
            if (found := metrics[case_at(n)].get(name))
        )
        for n in lengths
    )
    before = paired.best_of(text, NETWORKS, AS_IT_IS)
    texts = ", ".join(
        f"{name} {mean(bits[name].values()):.3f} ({mean(before[name].values()):.3f} before)"
        for name in NETWORKS
        if name in before
    )
    return Verdict(
        word,
        f"First token and cache: {told}. At the longest {CORES} take {time:.2f} of the time and {cache:.2f} "
        f"of the cache of {FULL}. Bits per byte: {texts}; {CORES} {full[0]:+.3f} above {FULL} (standard "
        f"error {full[1]:.3f}), {window[0]:+.3f} above {WINDOW} ({window[1]:.3f}), {sinks[0]:+.3f} above "
        f"{SINKS} ({sinks[1]:.3f}), {len(bits[CORES])} seeds.",
    )


def lengths_in(metrics: Metrics) -> list[int]:
    """The prompts that there are times of, from the shortest."""
    return sorted(int(case.removeprefix("prompt-")) for case in metrics if case.startswith("prompt-"))


def made_up(*, time: float = 0.3, cache: float = 0.2, full: float = 0.02, window: float = -0.2) -> Metrics:
    """Metrics of a prompt and two seeds: core tokens' time and cache over full attention's, and their bits
    above full attention's and above both windows'."""
    metrics: dict[str, dict[str, dict[str, float]]] = {
        case_at(n): {
            FULL: {TIME: n / 10.0, STATE: 100.0 * n},
            CORES: {TIME: time * n / 10.0, STATE: cache * 100 * n},
        }
        for n in (4096, 32768)
    }
    for seed, noise in enumerate((-0.01, 0.01)):
        values = {FULL: 3 - full, CORES: 3 + noise, WINDOW: 3 - window, SINKS: 3 - window}
        found = {name: {TUNED: value, AS_IT_IS: value + 0.1} for name, value in values.items()}
        metrics[paired.case_of(CASE, seed, 3e-3)] = found
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(time=0.7),
    "not seen": made_up(window=0.1),
}
