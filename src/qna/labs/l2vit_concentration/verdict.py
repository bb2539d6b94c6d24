"""When the claim about local concentration held: the rule, on figures alone."""

from __future__ import annotations

import math
from statistics import mean

from qna.labs import paired
from qna.labs.ablation import TOP1, Ablation
from qna.labs.l2vit_concentration.layers import FULL, LINEAR, layer_case, side_of
from qna.labs.l2vit_concentration.networks import CONCENTRATED, NETWORKS, PLAIN, SOFTMAX
from qna.labs.l2vit_concentration.training import RADIUS
from qna.labs.row import Metrics, Verdict, Word

# time and memory may grow by the number of positions to this power and count as linear; softmax's must pass
# the other, or the maps are too small to tell
LINEAR_POWER, QUADRATIC_POWER = 1.15, 1.5
NEAR, CHANCE, ENTROPY = "none near", "none near-by-chance", "none entropy"
RULE = (
    "Each network counts at the learning rate with its better mean accuracy over the seeds. Held: from the "
    "smallest map to the largest, time and memory of linear attention grow by the number of positions to "
    f"the power of {LINEAR_POWER:g} at most, where softmax attention's time grows by a power above "
    f"{QUADRATIC_POWER:g} up to the largest map that it gets; of what others give a position, more comes "
    f"from the {2 * RADIUS + 1} x {2 * RADIUS + 1} around it with local concentration than without; and "
    "accuracy is higher with it, at no more parameters and multiply-adds; both by more than two standard "
    "errors of the mean difference over the seeds. Direction only: linear so, and both higher. Else not "
    "seen. What softmax attention looks at and reaches, and entropies, are told and do not count."
)
ABLATION = Ablation(CONCENTRATED, PLAIN, SOFTMAX)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    trained = {case: found for case, found in metrics.items() if side_of(case) is None}
    accuracy = ABLATION.verdict(trained)
    near = best_of(trained, NEAR)
    gained = paired.gain(near, CONCENTRATED, PLAIN)
    powers = {
        "linear time": power(metrics, LINEAR, "time"),
        "linear memory": power(metrics, LINEAR, "memory"),
        "softmax time": power(metrics, FULL, "time"),
    }
    known = {name: value for name, value in powers.items() if value is not None}
    if gained is None or len(known) < len(powers):
        return Verdict("not seen", "Figures of both networks over 2 seeds, or of both layers, are missing.")
    linear = (
        max(known["linear time"], known["linear memory"]) <= LINEAR_POWER
        and known["softmax time"] > QUADRATIC_POWER
    )
    word: Word = "not seen"
    if linear and gained[0] > 0 and accuracy.word != "not seen":
        clear = gained[0] > 2 * gained[1] and accuracy.word == "held"
        word = "held" if clear else "direction only"
    chance = paired.figures_of(trained, CHANCE).get(PLAIN)
    told = ", ".join(f"{name} {mean(near[name].values()):.1f} %" for name in NETWORKS if name in near)
    entropies = best_of(trained, ENTROPY)
    spread = ", ".join(
        f"{name} {mean(entropies[name].values()):.1f} %" for name in NETWORKS if name in entropies
    )
    return Verdict(
        word,
        f"Time of linear attention grows by positions to the power {known['linear time']:.2f}, its memory "
        f"{known['linear memory']:.2f}, softmax attention's time {known['softmax time']:.2f}; from near "
        f"positions come {told} (difference {gained[0]:+.1f}, standard error {gained[1]:.1f})"
        + (f", of even attention {chance:.1f} %" if chance is not None else "")
        + (f"; entropy of the attention alone {spread} of that of even shares" if spread else "")
        + f". {accuracy.figures}",
    )


def best_of(metrics: Metrics, figure: str) -> paired.BySeed:
    """A figure by seed of each network, at the rate with its better mean accuracy."""
    best: paired.BySeed = {}
    for name, right in paired.best_of(metrics, NETWORKS, TOP1).items():
        for case, found in metrics.items():
            seed, _ = paired.seed_and_rate(case)
            of_one = found.get(name, {})
            if of_one.get(TOP1) == right.get(seed) and figure in of_one:
                best.setdefault(name, {}).setdefault(seed, of_one[figure])
    return best


def power(metrics: Metrics, name: str, what: str) -> float | None:
    """By what power of the number of positions a layer's cost grows, from its smallest map to its largest."""
    found = {
        side: cost
        for case, of in metrics.items()
        if (side := side_of(case)) is not None and (cost := of.get(name, {}).get(f"forward {what}"))
    }
    sides = sorted(found)
    if len(sides) < 2:
        return None
    return math.log(found[sides[-1]] / found[sides[0]]) / (2 * math.log(sides[-1] / sides[0]))


def made_up(above: float = 1.0, near: float = 5.0, *, linear: float = 1.0, full: float = 2.0) -> Metrics:
    """Metrics of two seeds: accuracy and what comes from near are above by so much +-0.1; powers of costs."""
    metrics = {case: dict(of) for case, of in ABLATION.made_up(above).items()}
    for case, of in metrics.items():
        noise = 0.1 if paired.seed_and_rate(case)[0] else -0.1
        for name in NETWORKS:
            share = 30.0 + (near + noise if name == CONCENTRATED else 0.0)
            of[name] = {**of[name], NEAR: share, CHANCE: 20.0, ENTROPY: 95.0}
    for side in (32, 128, 512):
        grown = {LINEAR: (side / 32) ** (2 * linear), FULL: (side / 32) ** (2 * full)}
        names = (LINEAR, FULL) if side < 512 else (LINEAR,)
        metrics[layer_case(side)] = {
            name: {"forward time": grown[name], "forward memory": grown[name]} for name in names
        }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(above=0.15),
    "not seen": made_up(near=-1.0),
}
