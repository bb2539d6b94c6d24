"""When blocks of both kinds were better than either alone: the rule, on figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

from qna.labs import paired
from qna.labs.ablation import TOP1
from qna.labs.classifying import ACCURACY
from qna.labs.row import Metrics, Verdict, Word
from qna.labs.spectformer_share.networks import ATTENTION, CONTENDERS, MIXED, SPECTRAL

CONTROLS = (ATTENTION, SPECTRAL)
RULE = (
    "Each network counts at the learning rate with its better mean accuracy over the seeds. Held: the mixed "
    "one is above the one that only attends and above the one that is only spectral, each by more than two "
    "standard errors of the mean difference over the seeds. Direction only: it is above both in the mean. "
    "Else not seen. Depth and width are the same; parameters and multiply-adds are told and do not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    best = paired.best_of(metrics, CONTENDERS, TOP1)
    gains = {other: gain for other in CONTROLS if (gain := paired.gain(best, MIXED, other))}
    if len(gains) < len(CONTROLS):
        return Verdict("not seen", f"Figures of {', '.join(CONTENDERS)} over 2 seeds are missing.")
    word: Word = "not seen"
    if all(gain > 0 for gain, _ in gains.values()):
        word = "held" if all(gain > 2 * error for gain, error in gains.values()) else "direction only"
    parameters, macs = (paired.figures_of(metrics, f"none {kind}") for kind in ("parameters", "macs"))

    def told(name: str) -> str:
        costs = [f"{parameters[name]:,.0f} parameters"] if name in parameters else []
        costs += [f"{macs[name]:.2f} million multiply-adds"] if name in macs else []
        return ", ".join([f"{name} {mean(best[name].values()):.2f} %", *costs])

    differences = ", ".join(
        f"{gain:+.2f} above {other} (standard error {error:.2f})" for other, (gain, error) in gains.items()
    )
    return Verdict(
        word,
        f"Right of the held-out images: {'; '.join(told(name) for name in CONTENDERS)}. {MIXED.capitalize()} "
        f"{differences}, {len(best[MIXED])} seeds.",
    )


def made_up(above: Mapping[str, float]) -> Metrics:
    """Metrics of two seeds in which the mixed network is so many points +-0.1 above each control."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for all
        for rate, loss in ((1e-3, 0.0), (3e-3, 5.0)):
            right = {MIXED: 80.0 + noise, **{other: 80.0 - above[other] for other in CONTROLS}}
            metrics[paired.case_of(ACCURACY, seed, rate)] = {
                name: {TOP1: value - loss} for name, value in right.items()
            }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up({ATTENTION: 1.0, SPECTRAL: 2.0}),
    "direction only": made_up({ATTENTION: 0.15, SPECTRAL: 2.0}),
    "not seen": made_up({ATTENTION: 2.0, SPECTRAL: -0.2}),
}
