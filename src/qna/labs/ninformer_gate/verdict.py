"""When gating by a token mixer was worth it: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.classifying import ACCURACY
from qna.labs.ninformer_gate.networks import CONTROLS, GATED, NETWORKS
from qna.labs.row import Metrics, Verdict, Word

TOP1, PARAMETERS, MACS = "train top1", "none parameters", "none macs"
RULE = (
    f"Each network at its better rate, {GATED} with no more parameters than any other. Held: it gets more of "
    f"the held-out images right than each of {' and '.join(CONTROLS)}, by more than two standard errors of "
    "the mean difference over the seeds. Direction only: it is above both in the mean. Else not seen. "
    "Multiply-adds are told and do not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    best = paired.best_of(metrics, NETWORKS, TOP1)
    gains = {other: found for other in CONTROLS if (found := paired.gain(best, GATED, other))}
    if len(gains) < len(CONTROLS):
        return Verdict("not seen", f"Figures of {', '.join(NETWORKS)} over 2 seeds are missing.")
    counts, macs = (paired.figures_of(metrics, figure) for figure in (PARAMETERS, MACS))
    larger = any(counts.get(GATED, 0) > counts.get(other, 0) for other in CONTROLS)
    word: Word = "not seen"
    if not larger and all(gain > 0 for gain, _ in gains.values()):
        word = "held" if all(gain > 2 * error for gain, error in gains.values()) else "direction only"
    told = "; ".join(
        f"{name} {mean(best[name].values()):.2f} % ({counts.get(name, 0):,.0f} parameters, "
        f"{macs.get(name, 0):.2f} million multiply-adds)"
        for name in NETWORKS
    )
    differences = ", ".join(
        f"{gain:+.2f} above {other} (standard error {error:.2f})" for other, (gain, error) in gains.items()
    )
    return Verdict(
        word,
        f"Right of the held-out images: {told}. {GATED} {differences}, {len(best[GATED])} seeds.",
    )


def made_up(*, above: float = 1.0, count: float = 94_000) -> Metrics:
    """Metrics of two seeds: gated above the MLP-Mixer by so much +-0.1, above attention by a point more."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for all
        for rate, loss in ((1e-3, 0.0), (3e-3, 5.0)):
            metrics[paired.case_of(ACCURACY, seed, rate)] = {
                name: {TOP1: right - loss, PARAMETERS: 94_000.0, MACS: 4.0}
                for name, right in zip(NETWORKS, (80 + above + noise, 80.0, 79.0), strict=True)
            }
            metrics[paired.case_of(ACCURACY, seed, rate)][GATED][PARAMETERS] = count
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(above=0.15),
    "not seen": made_up(above=-0.2),
}
