"""When the claim about QnA's up-sampling held: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.paired import BySeed
from qna.labs.qna_upsample.decoders import CLAIMED, QNA, UPSAMPLERS
from qna.labs.qna_upsample.training import PSNR
from qna.labs.row import Metrics, Verdict, Word

RULE = (
    "Every decoder counts at the learning rate with its better mean PSNR over the seeds. Held: QnA's mean is "
    f"above those of {' and '.join(CLAIMED)}, by more than two standard errors of the mean difference over "
    "the seeds each. Direction only: its mean is above both. Else not seen. What the other controls reach is "
    "told and does not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    best = best_of(metrics)
    gains = {name: gain(best, name) for name in best if name != QNA}
    claimed = [found for name in CLAIMED if (found := gains.get(name)) is not None]
    if len(claimed) < len(CLAIMED):
        return Verdict("not seen", f"Figures of {QNA}, {' and '.join(CLAIMED)} over 2 seeds are missing.")
    word: Word = "not seen"
    if all(difference > 0 for difference, _ in claimed):
        word = "held" if all(d > 2 * error for d, error in claimed) else "direction only"
    told = ", ".join(
        f"{name} {mean(best[name].values()):.2f} ({-found[0]:+.2f}, standard error {found[1]:.2f})"
        for name, found in gains.items()
        if found is not None
    )
    ours = best[QNA].values()
    return Verdict(word, f"QnA restores {mean(ours):.2f} dB; {told}; {len(ours)} seeds.")


def best_of(metrics: Metrics) -> BySeed:
    """PSNR by seed of each decoder, at the rate with its better mean."""
    return paired.best_of(metrics, UPSAMPLERS, "train psnr")


def gain(best: BySeed, name: str) -> tuple[float, float] | None:
    """By how much QnA is above a decoder, mean over the seeds, and the standard error; None below 2 seeds."""
    return paired.gain(best, QNA, name)


def made_up(**above: float) -> Metrics:
    """Metrics of two seeds in which QnA is above a control by so many dB +-0.1, by 1 where none is named."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for all
        for rate, loss in ((1.6e-2, 0.0), (3.2e-2, 2.0)):
            restored = {name: 25.0 - above.get(name.replace("-", "_"), 1.0) - loss for name in UPSAMPLERS}
            restored[QNA] = 25.0 + noise - loss
            metrics[paired.case_of(PSNR, seed, rate)] = {
                name: {"train psnr": v} for name, v in restored.items()
            }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(subpixel_convolution=-0.5),
    "direction only": made_up(bilinear=0.15),
    "not seen": made_up(transposed_convolution=-0.2),
}
