"""What blocks hold of attention, and what they take, by who chose them."""

from __future__ import annotations

from pathlib import Path

from qna.labs.proxyattn_prefill.recall import OWN_PROXIES
from qna.labs.proxyattn_prefill.selectors import CHOOSERS
from qna.labs.proxyattn_prefill.timing import CHOICE, EVERY, TORCH, time_case
from qna.labs.proxyattn_prefill.verdict import RECALL, TIME, lengths, texts
from qna.labs.row import Metrics
from qna.plots import plot_dots


def draw(path: Path, metrics: Metrics, note: str) -> None:
    """Draw two panels for each length, a dot for each text, to the PNG at `path` and an SVG beside it."""
    panels = []
    for length in lengths(metrics):
        found = [metrics[case] for case in texts(metrics, length)]
        recall = [
            {"name": name, "values": [text[name][RECALL] for text in found if RECALL in text.get(name, {})]}
            for name in (*CHOOSERS, OWN_PROXIES)
            if any(name in text for text in found)
        ]
        panels.append({"title": f"{length:,} tokens: of dense attention, %", "dots": recall})
        times = metrics.get(time_case(length), {})
        dots = [
            {"name": name, "values": [times[name][TIME] / 1e3]}
            for name in (TORCH, EVERY, *CHOOSERS, CHOICE)
            if TIME in times.get(name, {})
        ]
        panels.append({"title": f"{length:,} tokens: a layer's attention, s", "dots": dots})
    plot_dots(path, panels, title="Prompts read by blocks, by who chooses them", note=note, xlabel="")
