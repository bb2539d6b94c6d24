"""The rule of laboratories that take one thing away: networks alike in all but that, at no more cost."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from qna.labs import paired
from qna.labs.classifying import ACCURACY
from qna.labs.paired import BySeed
from qna.labs.row import Metrics, Verdict, Word

TOP1 = "train top1"


@dataclass(frozen=True)
class Ablation:
    """Three networks that classify: what `ours` has and `without` has not is worth it, or is not.

    Attributes:
        ours: the network of the claim.
        without: the same without the one thing.
        beside: a third, of which figures are told and do not count.
    """

    ours: str
    without: str
    beside: str

    def best_of(self, metrics: Metrics) -> BySeed:
        """Accuracy by seed of each network, at the rate with its better mean."""
        return paired.best_of(metrics, (self.ours, self.without, self.beside), TOP1)

    def verdict(self, metrics: Metrics) -> Verdict:
        """Held: above by more than two standard errors of the mean difference, at no more cost."""
        best = self.best_of(metrics)
        found = paired.gain(best, self.ours, self.without)
        if found is None:
            return Verdict("not seen", f"Figures of {self.ours} and {self.without} over 2 seeds are missing.")
        difference, error = found
        costs = [paired.figures_of(metrics, f"none {kind}") for kind in ("parameters", "macs")]
        dearer = any(cost.get(self.ours, 0) > cost.get(self.without, 0) for cost in costs)
        word: Word = "not seen"
        if difference > 0 and not dearer:
            word = "held" if difference > 2 * error else "direction only"
        macs = costs[1]

        def told(name: str) -> str:
            cost = f", {macs[name]:.2f} million multiply-adds" if name in macs else ""
            return f"{name} {mean(best[name].values()):.2f} %{cost}"

        beside = f"; {told(self.beside)}" if self.beside in best else ""
        return Verdict(
            word,
            f"Right of the held-out images: {told(self.ours)}; {told(self.without)} (difference "
            f"{difference:+.2f}, standard error {error:.2f}, {len(best[self.ours])} seeds){beside}.",
        )

    def made_up(self, above: float, *, macs: float = 3.0, beside_macs: float = 4.0) -> Metrics:
        """Metrics of two seeds in which `ours` is above by so many points +-0.1."""
        metrics: dict[str, dict[str, dict[str, float]]] = {}
        for seed, noise in enumerate((-0.1, 0.1)):
            # the other rate is worse for all
            for rate, loss in ((2e-3, 0.0), (4e-3, 5.0)):
                right = {self.ours: 80.0 + above + noise, self.without: 80.0, self.beside: 81.0}
                cost = {self.ours: macs, self.without: 3.0, self.beside: beside_macs}
                metrics[paired.case_of(ACCURACY, seed, rate)] = {
                    name: {TOP1: right[name] - loss, "none macs": cost[name]} for name in right
                }
        return metrics

    def examples(self) -> dict[Word, Metrics]:
        """Metrics for each word."""
        return {
            "held": self.made_up(1.0),
            "direction only": self.made_up(0.15),
            "not seen": self.made_up(-0.2),
        }
