"""When QnA's claim held: the rule, on figures alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, stdev

from qna.bench.measure.contender import MODES
from qna.labs.qna_cost.layers import OVERLAPPING, PLAIN, QNA, TILES, layer_case, window_of
from qna.labs.qna_cost.training import NETWORKS, rate_of, training_case
from qna.labs.row import Metrics, Verdict, Word

# the abstract's "up to"
LESS_MEMORY, FASTER = 10.0, 5.0
RULE = (
    f"Held: at the largest window QnA's layer takes at most 1/{LESS_MEMORY:g} of the memory and 1/{FASTER:g} "
    "of the time of whichever overlapping control takes less, forward and forward+backward; both ratios are "
    "larger there than at the smallest window; in plain torch, without a compiled kernel, QnA takes less of "
    "both too; and its network gets no fewer held-out images right, up to one standard error of the mean "
    "difference over the seeds, each network at its better rate. Direction only: both ratios are above 1 at "
    "the largest window and larger than at the smallest, and accuracy is lower by two standard errors at "
    "most. Else not seen: cost that was paid for with accuracy is no gain."
)
# resident memory is told in pages of 4 KiB, so that less than one cannot be seen
_LEAST = {"time": 0.0, "memory": 4096 / 2**20}


@dataclass(frozen=True)
class Accuracy:
    """The networks of equal cost, each at its better rate.

    Attributes:
        ours: per cent, mean over the seeds.
        control: of the network with self-attention in windows.
        error: standard error of the mean difference; 0 where one seed cannot tell.
        seeds: how many pairs.
    """

    ours: float
    control: float
    error: float
    seeds: int


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    windows = sorted(k for k in map(window_of, metrics) if k is not None)
    accuracy = compare_accuracy(metrics)
    found = [gains(metrics, QNA, OVERLAPPING, k) for k in windows]
    if not found or accuracy is None or found[0] is None or found[-1] is None:
        return Verdict(
            "not seen", "The figures of the smallest and largest window, or of the networks, are missing."
        )
    first, last = found[0], found[-1]
    plain, tiles = (gains(metrics, *pair, windows[-1]) for pair in ((PLAIN, OVERLAPPING), (QNA, (TILES,))))
    difference = accuracy.ours - accuracy.control
    growing = all(b > max(a, 1.0) for a, b in zip(first, last, strict=True))
    reached = last[0] >= LESS_MEMORY and last[1] >= FASTER and plain is not None and min(plain) > 1
    word: Word = "not seen"
    if growing and difference >= -2 * accuracy.error:
        word = "held" if reached and difference >= -accuracy.error else "direction only"
    also = [f"of QnA in plain torch {_said(plain)}"] if plain else []
    also += [f"windows that tile the map take {_said(tiles)} of QnA's layer"] if tiles else []
    return Verdict(
        word,
        f"At {windows[-1]}x{windows[-1]} the cheaper overlapping control takes {last[0]:.3g} times the "
        f"memory and {last[1]:.3g} times the time of QnA's layer, "
        f"at {windows[0]}x{windows[0]} {_said(first)}; "
        f"{''.join(f'{text}; ' for text in also)}at equal cost {accuracy.ours:.2f} % right against "
        f"{accuracy.control:.2f} % (difference {difference:+.2f}, standard error {accuracy.error:.2f}, "
        f"{accuracy.seeds} seed{'s' if accuracy.seeds > 1 else ''}).",
    )


def gains(metrics: Metrics, who: str, controls: Iterable[str], window: int) -> tuple[float, float] | None:
    """How many times less memory and time a layer takes than the cheapest control, in its worse mode.

    Returns:
        memory and time; None where a figure is missing.
    """
    at = metrics.get(layer_case(window), {})
    worst = []
    for metric in ("memory", "time"):
        ratios = []
        for mode in MODES:
            key = f"{mode} {metric}"
            against = [at[name][key] for name in controls if key in at.get(name, {})]
            if not against or key not in at.get(who, {}):
                return None
            ratios.append(max(min(against), _LEAST[metric]) / max(at[who][key], _LEAST[metric]))
        worst.append(min(ratios))
    return worst[0], worst[1]


def compare_accuracy(metrics: Metrics) -> Accuracy | None:
    """The networks over the seeds, each at the rate with the better mean; None without figures of both."""
    best: dict[str, list[float]] = {}
    for name in NETWORKS:
        by_rate: dict[float, list[float]] = {}
        for case, contenders in metrics.items():
            rate, figure = rate_of(case), contenders.get(name, {}).get("train top1")
            if rate is not None and figure is not None:
                by_rate.setdefault(rate, []).append(figure)
        if not by_rate:
            return None
        best[name] = max(by_rate.values(), key=mean)
    ours, control = best.values()
    differences = [a - b for a, b in zip(ours, control, strict=True)]
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return Accuracy(mean(ours), mean(control), error, len(differences))


def made_up(memory: float, time: float, accuracy: float, *, plain: float = 2.0) -> Metrics:
    """Metrics with these ratios and this difference of accuracy, for examples and tests.

    Args:
        memory: ratio of the cheaper overlapping control to QnA at the largest window; half at the smallest.
        time: likewise.
        accuracy: of QnA's network minus that of the control, in per cent, +-0.1 over two seeds.
        plain: both ratios of the control to QnA in plain torch.
    """
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for window, share in ((3, 0.5), (13, 1.0)):
        against = {"memory": 100.0, "time": 50.0}
        layers = {
            QNA: {"memory": 100.0 / (share * memory), "time": 50.0 / (share * time)},
            PLAIN: {name: value / plain for name, value in against.items()},
            **{
                name: {k: (1 + place) * v for k, v in against.items()}
                for place, name in enumerate(OVERLAPPING)
            },
        }
        metrics[layer_case(window)] = {
            name: {f"{mode} {metric}": value for mode in MODES for metric, value in of_one.items()}
            for name, of_one in layers.items()
        }
    for seed, noise in enumerate((-0.1, 0.1)):
        # the other rate is worse for both
        for rate, loss in ((8e-3, 0.0), (1.6e-2, 5.0)):
            right = {"qna": 90.0 + accuracy + noise - loss, "window-attention": 90.0 - loss}
            metrics[training_case(seed, rate)] = {name: {"train top1": p} for name, p in right.items()}
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(12.0, 6.0, 0.5),
    "direction only": made_up(8.0, 6.0, 0.5),
    "not seen": made_up(12.0, 6.0, -3.0),
}


def _said(gain: tuple[float, float]) -> str:
    return f"{gain[0]:.3g} and {gain[1]:.3g} times"
