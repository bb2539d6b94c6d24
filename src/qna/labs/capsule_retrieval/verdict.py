"""When selecting by self-attention was cheaper and no worse: the rule, on figures alone."""

from __future__ import annotations

from statistics import mean

from qna.labs.capsule_retrieval.networks import ATTENTION, DYNAMIC, EM, NONE
from qna.labs.capsule_retrieval.pairs import TASKS
from qna.labs.capsule_retrieval.training import (
    CONTENDERS,
    MODE,
    MORE,
    ROUTED,
    capsules_of,
    cost_case,
    retrieval_case,
)
from qna.labs.row import Metrics, Verdict, Word

RECALL, TIME, MEMORY = "train recall-1", f"{MODE} time", f"{MODE} memory"
# points of recall by which it may be below the better of the routings that iterate
WITHIN = 1.0
RULE = (
    "Held: at the most capsules routing by self-attention takes less time and less memory, forward and "
    "backward, than dynamic and than EM routing; and in both tasks the pairs that it finds, mean over the "
    f"seeds, are at most {WITHIN:g} point fewer than with the better of those two and more than without "
    "routing. Direction only: it is cheaper in both ways, and in one task at least that is true. Else not "
    "seen. What more capsules give is told and does not count."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    counts = sorted(count for case in metrics if (count := capsules_of(case)) is not None)
    cost = metrics[cost_case(counts[-1])] if counts else {}
    recall = {task: recalls(metrics, task) for task in TASKS}
    asked = all(name in found for found in recall.values() for name in (*ROUTED, NONE))
    if not asked or not all(cost.get(name, {}).get(figure) for name in ROUTED for figure in (TIME, MEMORY)):
        return Verdict("not seen", "Figures of a routing's cost, or of a task, are missing: 0 comparisons.")
    cheaper = all(cost[ATTENTION][f] < cost[name][f] for name in (DYNAMIC, EM) for f in (TIME, MEMORY))
    good = [
        found[ATTENTION] >= max(found[DYNAMIC], found[EM]) - WITHIN and found[ATTENTION] > found[NONE]
        for found in recall.values()
    ]
    word: Word = "not seen"
    if cheaper and any(good):
        word = "held" if all(good) else "direction only"
    costs = ", ".join(f"{n} {cost[n][TIME]:.1f} ms and {cost[n][MEMORY]:.1f} MiB" for n in ROUTED)
    told = "; ".join(
        f"{task}: "
        + ", ".join(f"{name} {found[name]:.1f}" for name in (*ROUTED, NONE, MORE) if name in found)
        for task, found in recall.items()
    )
    return Verdict(word, f"With {counts[-1]} capsules: {costs}. Right at first, in per cent, {told}.")


def recalls(metrics: Metrics, task: str) -> dict[str, float]:
    """Recall of each contender in a task, mean over the seeds."""
    cases = [contenders for case, contenders in metrics.items() if case.startswith(f"{task}-seed")]
    return {
        name: mean(case[name][RECALL] for case in cases)
        for name in CONTENDERS
        if cases and all(RECALL in case.get(name, {}) for case in cases)
    }


def made_up(*, halves: float = 60.0, captions: float = 70.0, time: float = 2.0) -> Metrics:
    """Metrics of two seeds and two numbers of capsules."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for count in (8, 16):
        metrics[cost_case(count)] = {
            ATTENTION: {TIME: time, MEMORY: 1.0 * count},
            DYNAMIC: {TIME: 5.0, MEMORY: 9.0 * count},
            EM: {TIME: 9.0, MEMORY: 12.0 * count},
        }
    for seed in range(2):
        for task, ours in zip(TASKS, (halves, captions), strict=True):
            found = {ATTENTION: ours + seed, DYNAMIC: 60.0, EM: 55.0, NONE: 50.0, MORE: 62.0}
            metrics[retrieval_case(task, seed)] = {name: {RECALL: value} for name, value in found.items()}
    return metrics


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(halves=56.0),
    "not seen": made_up(time=6.0),
}
