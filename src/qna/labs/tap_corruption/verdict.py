"""When averaged tokens and diverse attention made a network robust: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.row import Metrics, Verdict, Word
from qna.labs.tap_corruption.training import BOTH, CASE, NETWORKS, PLAIN

TOP1, DAMAGED, COSINE = "train top1", "none damaged-top1", "none cosine"
RULE = (
    f"{BOTH} against {PLAIN}. Held: it is right on more of the damaged images, the mean over four kinds, "
    "and two queries of a layer attend less alike, each by more than two standard errors of the mean "
    "difference over the seeds; and on whole images it is right no less often, up to one standard error. "
    "Direction only: more damaged images right and a smaller cosine in the mean. Else not seen. Each half "
    "alone is told and does not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    found = {figure: paired.best_of(metrics, NETWORKS, figure) for figure in (TOP1, DAMAGED, COSINE)}
    gains = {figure: paired.gain(by_seed, BOTH, PLAIN) for figure, by_seed in found.items()}
    right, damaged, cosine = (gains[figure] for figure in (TOP1, DAMAGED, COSINE))
    if right is None or damaged is None or cosine is None:
        return Verdict("not seen", f"Figures of {BOTH} and {PLAIN} over 2 seeds are missing.")
    word: Word = "not seen"
    if damaged[0] > 0 and cosine[0] < 0:
        sure = damaged[0] > 2 * damaged[1] and cosine[0] < -2 * cosine[1] and right[0] >= -right[1]
        word = "held" if sure else "direction only"
    told = "; ".join(
        f"{name}: whole {mean(found[TOP1][name].values()):.1f} %, damaged "
        f"{mean(found[DAMAGED][name].values()):.1f} %, cosine {mean(found[COSINE][name].values()):.3f}"
        for name in NETWORKS
        if all(name in by_seed for by_seed in found.values())
    )
    return Verdict(
        word,
        f"{told}. {BOTH.capitalize()} above {PLAIN}: damaged {damaged[0]:+.2f} (standard error "
        f"{damaged[1]:.2f}), whole {right[0]:+.2f} ({right[1]:.2f}), cosine {cosine[0]:+.3f} "
        f"({cosine[1]:.3f}), {len(found[TOP1][BOTH])} seeds.",
    )


def made_up(*, damaged: float = 5.0, cosine: float = -0.2, right: float = 0.5) -> Metrics:
    """Metrics of two seeds: both above plain by so much, +-0.1 and +-0.01."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        both = {TOP1: 80 + right + noise, DAMAGED: 60 + damaged + noise, COSINE: 0.8 + cosine + noise / 10}
        plain = {TOP1: 80.0, DAMAGED: 60.0, COSINE: 0.8}
        metrics[paired.case_of(CASE, seed, 2e-3)] = {BOTH: both, PLAIN: plain}
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(right=-2.0),
    "not seen": made_up(damaged=-1.0),
}
