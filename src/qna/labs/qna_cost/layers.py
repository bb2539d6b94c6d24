"""Time and peak memory of whole layers of equal channels and reach, in interleaved turns."""

from __future__ import annotations

from qna._core.errors import InvalidInput
from qna.bench.measure.calls import peaks_of_calls, time_calls
from qna.bench.measure.contender import MODES, Setting
from qna.bench.measure.gate import WrongOutput
from qna.bench.measure.harness import Plan
from qna.bench.measure.work import ContenderWork
from qna.bench.subjects.peers import PEERS
from qna.labs.qna_cost.config import QnACostConfig
from qna.labs.row import Figure

# the claim's subject, and the same without a compiled kernel of ours
QNA, PLAIN = "qna", "qna-reference"
# each position attends the window around it, by two ways to store the windows
OVERLAPPING = ("sasa-unfold", "halo")
# windows that tile the map: less work, and positions at a border see one side
TILES = "swin"
LAYERS = (QNA, PLAIN, *OVERLAPPING, TILES)
# the paper's channels per head of learned queries
HEAD_DIM = 8
# a call that takes longer counts once; no default case comes near
PATIENCE = 60.0


def layer_case(window: int) -> str:
    """The case of a window; `window_of` reads it back."""
    return f"layer-k{window}"


def window_of(case: str) -> int | None:
    """The window of a case of layers; None for other cases."""
    return int(case.removeprefix("layer-k")) if case.startswith("layer-k") else None


def measure_layers(config: QnACostConfig, window: int) -> list[Figure]:
    """Time and peak memory of all layers at one window, forward and with the gradients.

    Every layer is first held to its definition. One that has no room for its windows has no figure.

    Raises:
        InvalidInput: this system does not tell peak memory, or a layer computes something else than it shall.
    """
    setting = Setting(
        batch=config.batch,
        height=config.side,
        width=config.side,
        dim=config.dim,
        window=window,
        heads=config.dim // HEAD_DIM,
    )
    layers = {name: ContenderWork(PEERS[name].build(setting, "layer")) for name in LAYERS}
    return [figure for mode in MODES for figure in _measure(layers, setting, mode, config.seconds)]


def _measure(layers: dict[str, ContenderWork], setting: Setting, mode: str, seconds: float) -> list[Figure]:
    calls = {}
    for name, layer in layers.items():
        if PEERS[name].declines(setting, "layer", mode) is None:
            try:
                layer.verify(mode)
            except WrongOutput as error:
                raise InvalidInput(f"no cost of a wrong output: {name}, {mode}: {error}") from None
            calls[name] = layer.call(mode)
    peaks = peaks_of_calls(calls)
    times = time_calls(calls, plan=Plan(seconds=seconds, patience=PATIENCE))
    figures, case = [], layer_case(setting.window)
    for name, layer in layers.items():
        if name in calls:
            sizes = {size: getattr(setting, size) for size in ("batch", "height", "width", "dim", "dtype")}
            about = {**sizes, **layer.extra, "reach": setting.window, "calls": len(times.seconds[name])}
            taken = (1e3 * value for value in times.spread(name))
            figures.append(Figure(case, name, mode, "time", "ms", *taken, extra=about))
            figures.append(Figure(case, name, mode, "memory", "MiB", peaks[name] / 2**20, extra=about))
    return figures
