"""What the laboratory of unique signatures is told."""

from __future__ import annotations

from dataclasses import dataclass

from qna._core.errors import InvalidInput
from qna.labs.config_checks import check_counts, check_minutes, check_rates
from qna.labs.sinc_unique_signature.graphs import UniqueSignature


@dataclass(frozen=True)
class SincUniqueSignatureConfig:
    """Graph convolutions that look for a neighbour whose feature is the sum of all.

    Attributes:
        values: how many values features have, each a case; the first decides.
        edges: probabilities of an edge, each a case.
        fewest: nodes of a graph, at least.
        most: nodes of a graph, at most.
        hidden: channels of every network.
        graphs: to train on.
        judged: further graphs to judge on.
        steps: of training.
        batch: graphs of a step.
        rate: of AdamW, after a warm-up of a twentieth of the steps, to 0 along a cosine.
        seeds: training runs of each contender.
        minutes: the budget in CPU minutes.
        seed: the first seed.
    """

    values: tuple[int, ...] = (3, 5, 7)
    edges: tuple[float, ...] = (0.3, 0.5, 0.7)
    fewest: int = 30
    most: int = 70
    hidden: int = 16
    graphs: int = 4000
    judged: int = 1000
    steps: int = 1200
    batch: int = 16
    rate: float = 1e-2
    seeds: int = 2
    minutes: float = 15.0
    seed: int = 0

    def __post_init__(self):
        check_counts(self, "hidden", "graphs", "judged", "steps", "batch", "seeds")
        check_rates((self.rate,))
        check_minutes(self.minutes)
        for name in ("values", "edges"):
            found = getattr(self, name)
            if not found or len(set(found)) < len(found):
                raise InvalidInput(f"{name} must be one or more and differ, got {found}")
        for values in self.values:
            for edges in self.edges:
                self.data(values, edges)

    def data(self, values: int, edges: float) -> UniqueSignature:
        """The graphs of a case."""
        return UniqueSignature(edges, values, (self.fewest, self.most))
