"""When a network of learned queries segments as well as a U-Net: the rule, on figures alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean, stdev

from qna.labs.paired import case_of, seed_and_rate
from qna.labs.qna_segmentation.training import CONTROL, MASKS, NETWORKS, QNA
from qna.labs.row import Metrics, Verdict, Word

REGIONS, OUTLINES = "train miou", "train boundary_miou"
RULE = (
    "Each network counts at the rate at which its mean IoU over the seeds is higher. Held: the mean IoU of "
    "the QnA-UNet, and that of outlines, are no lower than the U-Net's, up to one standard error of the mean "
    "difference over the seeds. Direction only: both are lower by two standard errors at most. Else not seen."
)


@dataclass(frozen=True)
class Difference:
    """A score of both networks.

    Attributes:
        ours: per cent, mean over the seeds.
        control: of the U-Net.
        error: standard error of the mean difference; 0 where one seed cannot tell.
        seeds: how many.
    """

    ours: float
    control: float
    error: float
    seeds: int

    @property
    def behind(self) -> float:
        """How many standard errors ours is behind; below 0 where it is ahead."""
        lost = self.control - self.ours
        return lost / self.error if self.error else math.copysign(math.inf, lost) if lost else 0.0


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    chosen = {name: at_better_rate(metrics, name) for name in NETWORKS}
    found = [_difference(chosen, score) for score in (REGIONS, OUTLINES)]
    regions, outlines = found
    if regions is None or outlines is None:
        return Verdict("not seen", "The figures of one of the networks are missing.")
    worse = max(regions.behind, outlines.behind)
    word: Word = "held" if worse <= 1 else "direction only" if worse <= 2 else "not seen"
    return Verdict(
        word,
        f"Mean IoU {regions.ours:.2f} % against the U-Net's {regions.control:.2f} % (difference "
        f"{regions.ours - regions.control:+.2f}, standard error {regions.error:.2f}), of outlines "
        f"{outlines.ours:.2f} % against {outlines.control:.2f} % (difference "
        f"{outlines.ours - outlines.control:+.2f}, standard error {outlines.error:.2f}); "
        f"{regions.seeds} seed{'s' if regions.seeds > 1 else ''}.",
    )


def at_better_rate(metrics: Metrics, name: str) -> list[Mapping[str, float]]:
    """The figures of a network at each seed, at the rate with the higher mean IoU."""
    by_rate: dict[float, list[Mapping[str, float]]] = {}
    for case, contenders in metrics.items():
        figures = contenders.get(name, {})
        if REGIONS in figures and OUTLINES in figures:
            by_rate.setdefault(seed_and_rate(case)[1], []).append(figures)
    return max(by_rate.values(), key=lambda runs: mean(run[REGIONS] for run in runs), default=[])


def _difference(chosen: Mapping[str, list[Mapping[str, float]]], score: str) -> Difference | None:
    ours, control = ([run[score] for run in chosen[name]] for name in (QNA, CONTROL))
    if not ours or len(ours) != len(control):
        return None
    differences = [a - b for a, b in zip(ours, control, strict=True)]
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return Difference(mean(ours), mean(control), error, len(differences))


def made_up(regions: float, outlines: float) -> Metrics:
    """Metrics with these differences to the U-Net in per cent, +-0.1 over two seeds, for examples."""
    metrics = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for both
        for rate, lost in ((3.2e-2, 0.0), (9.6e-2, 5.0)):
            scores = {REGIONS: 60.0 - lost, OUTLINES: 40.0 - lost}
            ours = {REGIONS: scores[REGIONS] + regions + noise, OUTLINES: scores[OUTLINES] + outlines + noise}
            metrics[case_of(MASKS, seed, rate)] = {QNA: ours, CONTROL: scores}
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(0.5, 0.2),
    "direction only": made_up(0.5, -0.15),
    "not seen": made_up(-3.0, 0.5),
}
