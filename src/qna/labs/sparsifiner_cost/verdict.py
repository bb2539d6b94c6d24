"""When keys that are not seen are time that is not spent: the rule, on figures alone."""

from __future__ import annotations

from qna.labs.row import Metrics, Verdict, Word
from qna.labs.sparsifiner_cost.timing import NETWORKS, SHORT, SPARSE, WHOLE, network_case

TIME, MACS = "forward time", "none macs"
RULE = (
    f"Held: at every size the network whose queries see {SPARSE} takes less time than the one that sees "
    f"{WHOLE}, by at least half of the part of the multiply-adds that it saves. Direction only: it is faster "
    "at one size at least. Else not seen. The network whose tokens are taken out too is told and does "
    "not count, nor do the parts of one attention."
)


def verdict(metrics: Metrics) -> Verdict:
    """The verdict by `RULE`."""
    found = {size: metrics[network_case(size)] for size in sizes(metrics)}
    found = {
        size: case
        for size, case in found.items()
        if all(case.get(name, {}).get(figure) for name in (WHOLE, SPARSE) for figure in (TIME, MACS))
    }
    if not found:
        return Verdict("not seen", f"Figures of {WHOLE} and {SPARSE} are missing: 0 sizes.")
    time, macs = (
        {size: case[SPARSE][figure] / case[WHOLE][figure] for size, case in found.items()}
        for figure in (TIME, MACS)
    )
    word: Word = "direction only" if min(time.values()) < 1 else "not seen"
    if all(1 - time[size] >= (1 - macs[size]) / 2 > 0 for size in found):
        word = "held"
    told = "; ".join(
        f"at {size} pixels "
        + ", ".join(f"{name} {case[name][TIME]:.1f} ms" for name in NETWORKS if TIME in case.get(name, {}))
        + f" ({SPARSE} {time[size]:.2f} of the time and {macs[size]:.2f} of the multiply-adds of {WHOLE})"
        for size, case in found.items()
    )
    return Verdict(word, f"{told[0].upper()}{told[1:]}.")


def sizes(metrics: Metrics) -> list[int]:
    """The sizes of images that there are times of, from the smallest."""
    found = [case.removeprefix("network-") for case in metrics if case.startswith("network-")]
    return sorted(int(size.removesuffix("px")) for size in found)


def made_up(*, time: float = 0.9, larger: float = 0.8) -> Metrics:
    """Metrics of two sizes: times of the sparse network over the dense one's; its multiply-adds are 0.9."""
    return {
        network_case(size): {
            WHOLE: {TIME: 100.0, MACS: 1000.0},
            SPARSE: {TIME: 100 * ratio, MACS: 900.0},
            SHORT: {TIME: 70.0},
        }
        for size, ratio in ((224, time), (384, larger))
    }


EXAMPLES: dict[Word, Metrics] = {
    "held": made_up(),
    "direction only": made_up(time=1.1),
    "not seen": made_up(time=1.1, larger=1.2),
}
