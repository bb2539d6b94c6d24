"""When the claim about routing held: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.bench.subjects.peers.routing import CHUNKED, FUSED, GATHERED
from qna.labs import paired
from qna.labs.biformer_routing.layers import CASE, FORMS
from qna.labs.biformer_routing.networks import CONTENDERS, FULL, RANDOM, ROUTED, WINDOWS
from qna.labs.biformer_routing.training import ACCURACY
from qna.labs.paired import BySeed
from qna.labs.row import Metrics, Verdict, Word

RULE = (
    "Each network counts at the learning rate with its better mean accuracy over the seeds. Held: routed is "
    "above windows and above random by more than two standard errors of the mean difference over the seeds, "
    "and no lower than full, up to one standard error, at fewer multiply-adds. Direction only: it is above "
    "windows and above random. Else not seen. What the forms of the layer take is told and does not count."
)
_OTHERS = (WINDOWS, RANDOM, FULL)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    best = best_of(metrics)
    found = {name: paired.gain(best, ROUTED, name) for name in _OTHERS}
    gains = {name: gain for name, gain in found.items() if gain is not None}
    if len(gains) < len(_OTHERS):
        return Verdict("not seen", f"Figures of {', '.join(CONTENDERS)} over 2 seeds are missing.")
    macs = {name: _macs(metrics, name) for name in CONTENDERS}
    word: Word = "not seen"
    if all(gains[name][0] > 0 for name in (WINDOWS, RANDOM)):
        clear = all(gains[name][0] > 2 * gains[name][1] for name in (WINDOWS, RANDOM))
        as_good = gains[FULL][0] >= -gains[FULL][1] and 0 < macs[ROUTED] < macs[FULL]
        word = "held" if clear and as_good else "direction only"
    told = ", ".join(
        f"{name} {mean(best[name].values()):.2f} (difference {gain:+.2f}, standard error {error:.2f}, "
        f"{macs[name]:.2f} million multiply-adds)"
        for name, (gain, error) in gains.items()
    )
    return Verdict(
        word,
        f"Right of the held-out images: routed {mean(best[ROUTED].values()):.2f} % with {macs[ROUTED]:.2f} "
        f"million multiply-adds; {told}; {len(best[ROUTED])} seeds.{_of_layer(metrics)}",
    )


def best_of(metrics: Metrics) -> BySeed:
    """Accuracy by seed of each network, at the rate with its better mean."""
    trained = {case: found for case, found in metrics.items() if case.startswith(ACCURACY)}
    return paired.best_of(trained, CONTENDERS, "train top1")


def _macs(metrics: Metrics, name: str) -> float:
    return next((c[name]["none macs"] for c in metrics.values() if "none macs" in c.get(name, {})), 0.0)


def _of_layer(metrics: Metrics) -> str:
    """What the forms of the layer took, with the gradients, where they were measured."""
    forms = metrics.get(CASE, {})
    kinds = {"memory": "MiB", "time": "ms"}
    told = [
        ", ".join(
            f"{name} {forms[name][f'forward+backward {kind}']:.0f} {unit}"
            for name in FORMS
            if f"forward+backward {kind}" in forms.get(name, {})
        )
        for kind, unit in kinds.items()
    ]
    return f" The attention at a large map, forward and backward: {'; '.join(told)}." if all(told) else ""


def made_up(windows: float = 1.0, random: float = 1.0, full: float = 0.0) -> Metrics:
    """Metrics of two seeds in which routing is above the others by so many points +-0.1."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for all
        for rate, loss in ((4e-3, 0.0), (8e-3, 5.0)):
            right = {ROUTED: 80.0 + noise, WINDOWS: 80.0 - windows, RANDOM: 80.0 - random, FULL: 80.0 - full}
            cost = {ROUTED: 3.0, WINDOWS: 2.5, RANDOM: 3.0, FULL: 6.0}
            metrics[paired.case_of(ACCURACY, seed, rate)] = {
                name: {"train top1": right[name] - loss, "none macs": cost[name]} for name in CONTENDERS
            }
    taken = {CHUNKED: (50.0, 1700.0), GATHERED: (1500.0, 2900.0), FUSED: (250.0, 1400.0)}
    metrics[CASE] = {
        name: {"forward+backward memory": memory, "forward+backward time": time}
        for name, (memory, time) in taken.items()
    }
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(random=0.05),
    "not seen": made_up(random=-0.2),
}
