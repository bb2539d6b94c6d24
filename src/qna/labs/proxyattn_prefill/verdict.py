"""When a few proxies find what all heads look for, and that is time saved: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs.proxyattn_prefill.selectors import CHOOSERS, PROXY, RANDOM, WINDOW
from qna.labs.proxyattn_prefill.timing import EVERY, TORCH, time_case
from qna.labs.row import Metrics, Verdict, Word

RECALL, KEPT, TIME = "none recall", "none kept", "forward time"
ENOUGH = 90.0
RULE = (
    f"{PROXY.capitalize()} against as many {RANDOM}, and against as many blocks of {WINDOW}; and against "
    "full attention by torch's fused form or by the same kernel over all blocks, whichever is faster. Held: "
    f"at every length they hold at least {ENOUGH:g} % of dense attention (gamma is 95 %) and in every text "
    "more than both controls, and choice and attention together take at most half of the time of full "
    "attention. Direction only: in every text they hold more than random blocks, and at the largest length "
    "they take less time than full attention. Else not seen."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    recall = {length: _recall(metrics, length) for length in lengths(metrics)}
    times = {length: metrics.get(time_case(length), {}) for length in recall}
    if not recall or not all(
        all(name in text for name in CHOOSERS) for texts in recall.values() for text in texts
    ):
        return Verdict("not seen", "Figures of recall are missing: 0 lengths.")
    if not all(times[n].get(name, {}).get(TIME) for n in times for name in (TORCH, EVERY, PROXY)):
        return Verdict("not seen", f"Times are missing at one of {len(times)} lengths.")
    ratios = {n: t[PROXY][TIME] / min(t[TORCH][TIME], t[EVERY][TIME]) for n, t in times.items()}
    held = {n: {name: mean(text[name] for text in texts) for name in CHOOSERS} for n, texts in recall.items()}
    every = [text for texts in recall.values() for text in texts]
    word: Word = "not seen"
    if all(text[PROXY] > text[RANDOM] for text in every) and ratios[max(ratios)] < 1:
        word = "direction only"
        best = all(text[PROXY] > text[WINDOW] for text in every)
        if best and all(of[PROXY] >= ENOUGH for of in held.values()) and max(ratios.values()) <= 0.5:
            word = "held"
    told = "; ".join(
        f"at {n:,} tokens "
        + ", ".join(f"{name} hold {held[n][name]:.1f} %" for name in CHOOSERS)
        + f" of attention, and {PROXY} take {times[n][PROXY][TIME]:,.0f} ms where torch takes "
        f"{times[n][TORCH][TIME]:,.0f} and the kernel over all blocks {times[n][EVERY][TIME]:,.0f}"
        for n in recall
    )
    return Verdict(word, f"{told[0].upper()}{told[1:]}.")


def lengths(metrics: Metrics) -> list[int]:
    """The lengths that there are texts of."""
    found = {case.split("-")[1] for case in metrics if case.startswith("recall-")}
    return sorted(map(int, found))


def texts(metrics: Metrics, length: int) -> list[str]:
    """The cases of a length's texts."""
    return [case for case in metrics if case.startswith(f"recall-{length}-text")]


def _recall(metrics: Metrics, length: int) -> list[dict[str, float]]:
    return [
        {name: figures[RECALL] for name, figures in metrics[case].items() if RECALL in figures}
        for case in texts(metrics, length)
    ]


def made_up(*, recall: float = 94.0, window: float = 80.0, time: float = 40.0) -> Metrics:
    """Metrics of two lengths with a text each; random blocks hold 60 %, full attention takes 100 ms."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for length in (16_384, 65_536):
        shares = {PROXY: recall, WINDOW: window, RANDOM: 60.0}
        metrics[f"recall-{length}-text0"] = {n: {RECALL: share, KEPT: 30.0} for n, share in shares.items()}
        metrics[time_case(length)] = {TORCH: {TIME: 200.0}, EVERY: {TIME: 100.0}, PROXY: {TIME: time}}
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(window=97.0),
    "not seen": made_up(recall=55.0),
}
