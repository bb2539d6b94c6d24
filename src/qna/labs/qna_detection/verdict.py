"""When the claim held: the rule, on figures alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import mean, stdev

from qna.labs.qna_detection.config import DETECTORS
from qna.labs.qna_detection.training import CONVOLUTIONS, QNA, UNTRAINED, case_of, detector_of
from qna.labs.row import Metrics, Verdict, Word

RULE = (
    "Of each detector, the mean average precision with QnA is set beside that with convolutions, as a mean "
    "difference over the seeds. Held: with every detector QnA is not behind by more than one standard error, "
    "and finds more than the detector that was not trained on every seed. Direction only: it finds more than "
    "that on every seed, and is behind by two standard errors or a tenth of the other's precision at most, "
    "whichever is more. Else not seen."
)
_KEY = "train map"


@dataclass(frozen=True)
class Compared:
    """One detector on both backbones.

    Attributes:
        detector: its name.
        ours: mean average precision in per cent, mean over the seeds.
        control: likewise, with convolutions.
        error: standard error of the mean difference; 0 where one seed cannot tell.
        learned: whether ours found more than the one that was not trained, on every seed.
        seeds: how many.
    """

    detector: str
    ours: float
    control: float
    error: float
    learned: bool
    seeds: int

    @property
    def difference(self) -> float:
        """How far ours is ahead."""
        return self.ours - self.control


def compare(metrics: Metrics, detector: str) -> Compared | None:
    """One detector over the seeds; None without figures of all contenders."""
    triples = [
        tuple(contenders.get(name, {}).get(_KEY) for name in (QNA, CONVOLUTIONS, UNTRAINED))
        for case, contenders in metrics.items()
        if detector_of(case) == detector
    ]
    whole = [(a, b, c) for a, b, c in triples if a is not None and b is not None and c is not None]
    if not whole:
        return None
    differences = [ours - control for ours, control, _ in whole]
    error = stdev(differences) / math.sqrt(len(whole)) if len(whole) > 1 else 0.0
    learned = all(ours > untrained for ours, _, untrained in whole)
    return Compared(
        detector, mean(t[0] for t in whole), mean(t[1] for t in whole), error, learned, len(whole)
    )


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    found = [c for c in (compare(metrics, detector) for detector in DETECTORS) if c is not None]
    if not found:
        return Verdict("not seen", "The figures of one of the contenders are missing.")
    word: Word = "not seen"
    if all(c.learned for c in found):
        if all(c.difference >= -c.error for c in found):
            word = "held"
        elif all(c.difference >= -max(2 * c.error, c.control / 10) for c in found):
            word = "direction only"
    return Verdict(word, f"Mean average precision in per cent: {'; '.join(map(_said, found))}.")


def _said(c: Compared) -> str:
    seeds = f"{c.seeds} seed{'s' if c.seeds > 1 else ''}"
    blank = "" if c.learned else ", no more than without training"
    return (
        f"{c.detector} {c.ours:.1f} with QnA and {c.control:.1f} with convolutions (difference "
        f"{c.difference:+.1f}, standard error {c.error:.1f}, {seeds}){blank}"
    )


def made_up(difference: float, *, untrained: float = 0.1) -> Metrics:
    """Metrics of two seeds with this mean difference, +-1 over the seeds, for examples and tests."""
    return {
        case_of(detector, seed): {
            QNA: {_KEY: 30.0 + difference + noise},
            CONVOLUTIONS: {_KEY: 30.0},
            UNTRAINED: {_KEY: untrained},
        }
        for detector in DETECTORS
        for seed, noise in enumerate((-1.0, 1.0))
    }


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(0.5),
    "direction only": made_up(-2.5),
    "not seen": made_up(-9.0),
}
