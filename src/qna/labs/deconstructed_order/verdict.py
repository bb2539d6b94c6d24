"""When variants of attention stand in the paper's order: the rule, on figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from statistics import mean

from qna.labs import paired
from qna.labs.deconstructed_order.training import (
    HYBRID,
    INDUCTION,
    NAMES,
    SKIP,
    STANDARD,
    TASKS,
    TEXT,
    TIERS,
    UNIFORM,
    VARIANTS,
)
from qna.labs.row import Metrics, Verdict, Word

LOSS = "train loss"
WORST = f"MLP {UNIFORM}"
# pairs of two tiers, the better one first
PAIRS = [(one, other) for better, worse in combinations(TIERS, 2) for one in better for other in worse]
# pairs that must stand in order, hybrids that must be close, and how close
MOST, SOME, CLOSE, NEAR = 15, 12, 5, 0.2
RULE = (
    f"By the held-out loss, mean over the seeds, on {TEXT} and on {INDUCTION}. Of the {len(PAIRS)} pairs of "
    f"variants from different tiers ({'; '.join(', '.join(tier) for tier in TIERS)}), in every layer, those "
    "count in which the paper's better one loses less. A hybrid is close if it loses at most a fifth of what "
    f"MLP in every layer loses more than {STANDARD}. Held: on both tasks at least {MOST} pairs stand in "
    f"order and at least {CLOSE} of {len(VARIANTS)} hybrids are close, and on {TEXT} every hybrid without "
    "its odd layers loses more than MLP in every layer. Direction only: on both tasks at least "
    f"{SOME} pairs stand in order, and at least {CLOSE} variants lose less as hybrids than in every layer. "
    "Else not seen."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    found = {task: losses(metrics, task) for task in TASKS}
    if any(name not in found[task] for task in TASKS for name in NAMES):
        missing = sum(name not in found[task] for task in TASKS for name in NAMES)
        return Verdict("not seen", f"Losses of {missing} of {len(TASKS) * len(NAMES)} decoders are missing.")
    ordered = {task: sum(_of(one, of) < _of(other, of) for one, other in PAIRS) for task, of in found.items()}
    close = {
        task: sum(_share(f"{name} {HYBRID}", of) <= NEAR for name in VARIANTS) for task, of in found.items()
    }
    helped = {
        task: sum(of[f"{name} {HYBRID}"] < of[f"{name} {UNIFORM}"] for name in VARIANTS)
        for task, of in found.items()
    }
    skipped = sum(found[TEXT][f"{name} {SKIP}"] > found[TEXT][WORST] for name in VARIANTS)
    word: Word = "not seen"
    if min(ordered.values()) >= SOME and min(helped.values()) >= CLOSE:
        held = min(ordered.values()) >= MOST and min(close.values()) >= CLOSE and skipped == len(VARIANTS)
        word = "held" if held else "direction only"
    told = "; ".join(
        f"{task}: {ordered[task]} of {len(PAIRS)} pairs in order, {close[task]} of {len(VARIANTS)} hybrids "
        f"close, {helped[task]} better than in every layer ({_told(of)})"
        for task, of in found.items()
    )
    return Verdict(
        word,
        f"Bits lost, in every layer / in odd ones. {told}. Without odd layers {skipped} of {len(VARIANTS)} "
        f"lose more than {WORST} on {TEXT}.",
    )


def losses(metrics: Metrics, task: str) -> dict[str, float]:
    """What each decoder loses on a task, mean over the seeds."""
    of_task = {case: contenders for case, contenders in metrics.items() if case.startswith(f"{task}-seed")}
    best = paired.best_of(of_task, NAMES, LOSS)
    return {name: mean(by_seed.values()) for name, by_seed in best.items()}


def _of(variant: str, found: Mapping[str, float]) -> float:
    return found[variant if variant == STANDARD else f"{variant} {UNIFORM}"]


def _share(name: str, found: Mapping[str, float]) -> float:
    """Of what the MLP loses more than standard attention."""
    span = found[WORST] - found[STANDARD]
    # where the MLP is no worse there is nothing to be close within
    return (found[name] - found[STANDARD]) / span if span > 0 else float("inf")


def _told(found: Mapping[str, float]) -> str:
    each = [f"{name} {found[f'{name} {UNIFORM}']:.3f} / {found[f'{name} {HYBRID}']:.3f}" for name in VARIANTS]
    return ", ".join([f"{STANDARD} {found[STANDARD]:.3f}", *each])


def made_up(*, step: float = 0.2, hybrid: float = 0.05, skip: float = 3.0) -> Metrics:
    """Metrics in which a tier loses `step` more than the one before, hybrids `hybrid` more than standard."""
    tier = {name: number for number, names in enumerate(TIERS) for name in names}
    figures = {STANDARD: {LOSS: 2.0}}
    for name in VARIANTS:
        figures[f"{name} {UNIFORM}"] = {LOSS: 2.0 + step * tier[name]}
        figures[f"{name} {HYBRID}"] = {LOSS: 2.0 + hybrid}
        figures[f"{name} {SKIP}"] = {LOSS: 2.0 + skip}
    return {paired.case_of(task, seed, 3e-3): figures for task in TASKS for seed in range(2)}


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(hybrid=0.15),
    "not seen": made_up(step=-0.2),
}
