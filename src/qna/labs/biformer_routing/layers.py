"""Time and peak memory of the attention alone at a large map, beside two forms that gather all at once."""

from __future__ import annotations

from qna._core.errors import InvalidInput
from qna.bench.measure.calls import peaks_of_calls, time_calls
from qna.bench.measure.contender import MODES, Setting
from qna.bench.measure.gate import WrongOutput
from qna.bench.measure.harness import Plan
from qna.bench.measure.work import ContenderWork
from qna.bench.subjects.peers import PEERS
from qna.bench.subjects.peers.routing import CHUNKED, FUSED, GATHERED, REGIONS, TOPK
from qna.labs.biformer_routing.config import BiFormerRoutingConfig
from qna.labs.row import Figure

FORMS = (CHUNKED, GATHERED, FUSED)
CASE = "layer"
# a call that takes longer counts once
PATIENCE = 30.0


def measure_forms(config: BiFormerRoutingConfig) -> list[Figure]:
    """Time and peak memory of all forms, forward and with the gradients, each held to the definition first.

    Raises:
        InvalidInput: this system does not tell peak memory, or a form computes something else than it shall.
    """
    # heads of 32 channels, as published; the window plays no part
    setting = Setting(
        batch=1,
        height=config.side,
        width=config.side,
        dim=config.side_dim,
        window=3,
        heads=config.side_dim // 8,
    )
    forms = {name: ContenderWork(PEERS[name].build(setting, "op")) for name in FORMS}
    about = {
        "height": config.side,
        "width": config.side,
        "dim": config.side_dim,
        "heads": setting.attention_heads,
    }
    about |= {"regions": REGIONS, "topk": TOPK}
    figures = []
    for mode in MODES:
        for name, form in forms.items():
            try:
                form.verify(mode)
            except WrongOutput as error:
                raise InvalidInput(f"no cost of a wrong output: {name}, {mode}: {error}") from None
        calls = {name: form.call(mode) for name, form in forms.items()}
        peaks = peaks_of_calls(calls)
        times = time_calls(calls, plan=Plan(seconds=config.seconds, patience=PATIENCE))
        for name in forms:
            extra = {**about, "calls": len(times.seconds[name])}
            taken = (1e3 * value for value in times.spread(name))
            figures.append(Figure(CASE, name, mode, "time", "ms", *taken, extra=extra))
            figures.append(Figure(CASE, name, mode, "memory", "MiB", peaks[name] / 2**20, extra=extra))
    return figures
