"""When receptive fields grew and the overview helped: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs import paired
from qna.labs.overlock_context.networks import BLIND, NETWORKS, STATIC, WHOLE
from qna.labs.overlock_context.training import CONTEXT, SHARE
from qna.labs.paired import BySeed
from qna.labs.row import Metrics, Verdict, Word

TOP1, FIELD = "train top1", "none field-"
# of the images' growth: what counts as growing with them, and as not growing
GROWS, STAYS = 0.5, 0.1
RULE = (
    f"A field's side holds {SHARE:.0%} of what moves the middle of the last map, after training; its growth "
    "is its own from the smallest to the largest images, less 1, over that of the images, less 1. Networks "
    "count at the learning rate with their better mean accuracy. Held: over the seeds the mean growth of "
    f"{WHOLE} is at least {GROWS} and that of {STATIC} at most {STAYS}, and {WHOLE} is above {BLIND} by more "
    "than two standard errors of the mean difference. Direction only: the growth is larger than that of "
    f"{STATIC} on every seed, or {WHOLE} is above {BLIND} so far. Else not seen."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    right, grown = paired.best_of(metrics, NETWORKS, TOP1), growth(metrics)
    above = paired.gain(right, WHOLE, BLIND)
    if above is None or not grown.get(WHOLE) or not grown.get(STATIC):
        return Verdict("not seen", f"Figures of {', '.join(NETWORKS)} over 2 seeds are missing.")
    helps = above[0] > 2 * above[1]
    grows = mean(grown[WHOLE].values()) >= GROWS and mean(grown[STATIC].values()) <= STAYS
    larger = all(at > grown[STATIC].get(seed, at) for seed, at in grown[WHOLE].items())
    word: Word = "held" if helps and grows else "direction only" if helps or larger else "not seen"
    fields = "; ".join(_told(name, metrics, grown) for name in NETWORKS if name in grown)
    accuracy = ", ".join(f"{name} {mean(right[name].values()):.1f} %" for name in NETWORKS if name in right)
    return Verdict(
        word,
        f"Receptive fields: {fields}. Right: {accuracy}; {WHOLE} above {BLIND} by {above[0]:+.2f} (standard "
        f"error {above[1]:.2f}, {len(right[WHOLE])} seeds).",
    )


def _told(name: str, metrics: Metrics, grown: BySeed) -> str:
    means = {pixels: mean(found[name].values()) for pixels, found in sides(metrics).items() if name in found}
    fields = ", ".join(f"{side:.0f} px at {pixels}" for pixels, side in means.items())
    return f"{name} {fields} (growth {mean(grown[name].values()):.2f})"


def sides(metrics: Metrics) -> dict[int, BySeed]:
    """Sides of fields in pixels by size of image, network and seed, at each network's better rate."""
    pixels = {
        int(figure.removeprefix(FIELD))
        for contenders in metrics.values()
        for figures in contenders.values()
        for figure in figures
        if figure.startswith(FIELD)
    }
    right = paired.best_of(metrics, NETWORKS, TOP1)
    found: dict[int, BySeed] = {size: {} for size in sorted(pixels)}
    for case, contenders in metrics.items():
        seed, _ = paired.seed_and_rate(case)
        for name, figures in contenders.items():
            for size, by_name in found.items():
                at = figures.get(f"{FIELD}{size}")
                if at is not None and figures.get(TOP1) == right.get(name, {}).get(seed):
                    by_name.setdefault(name, {})[seed] = at
    return found


def growth(metrics: Metrics) -> BySeed:
    """Of the field from the smallest images to the largest, over that of the images, by network and seed."""
    found = sides(metrics)
    if len(found) < 2:
        return {}
    (small, first), *_, (large, last) = found.items()
    return {
        name: {
            seed: (last[name][seed] / by_seed[seed] - 1) / (large / small - 1)
            for seed in by_seed
            if seed in last.get(name, {})
        }
        for name, by_seed in first.items()
    }


def made_up(*, static: float = 205.0, above: float = 2.0, whole: float = 480.0) -> Metrics:
    """Metrics of two seeds: sides at 512 pixels, and accuracy above the network without overview +-0.1."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for all
        for rate, loss in ((4e-3, 0.0), (1e-2, 5.0)):
            right = {WHOLE: 80.0 + above + noise, BLIND: 80.0, STATIC: 79.0}
            side = {WHOLE: whole, BLIND: 300.0, STATIC: static}
            metrics[paired.case_of(CONTEXT, seed, rate)] = {
                name: {TOP1: right[name] - loss, f"{FIELD}256": 200.0, f"{FIELD}512": side[name]}
                for name in NETWORKS
            }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(static=300.0),
    "not seen": made_up(whole=200.0, above=-1.0),
}
