"""Bits per byte at the long context, seed by seed, and the leak."""

from __future__ import annotations

from pathlib import Path

from qna.labs import paired
from qna.labs.row import Metrics
from qna.labs.sinklora_context.leak import FULL_BITS, GROUPS, LEAKING, OWN_BITS
from qna.labs.sinklora_context.training import BITS, CASE, WAYS
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw both panels; a decoder that is not adapted would lie far outside the first."""
    text = {case: found for case, found in metrics.items() if case.startswith(f"{CASE}-seed")}
    best = paired.best_of(text, WAYS, BITS)
    leak = [
        (f"{name}, {how}", figure, name)
        for name in (LEAKING, GROUPS)
        for how, figure in (("as trained", OWN_BITS), ("full inference", FULL_BITS))
    ]
    cases = [found for case, found in metrics.items() if case.startswith("leak-seed")]
    shown = {
        label: [found[name][f] for found in cases if f in found.get(name, {})] for label, f, name in leak
    }
    plot_dots(
        path,
        [
            {
                "title": "bits per byte of text, long context",
                "dots": [{"name": name, "values": list(by_seed.values())} for name, by_seed in best.items()],
            },
            {
                "title": "bits of a symbol that chance alone says (4)",
                "dots": [{"name": label, "values": values} for label, values in shown.items() if values],
            },
        ],
        title="A decoder adapted to a longer context, by what it attends in training",
        note=note,
        xlabel="bits, fewer are better",
        digits=3,
    )
