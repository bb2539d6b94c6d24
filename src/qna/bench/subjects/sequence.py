"""Causal mixers on long sequences: a prompt in one step, then one position after the other, with memory.

No speed is told of a mixer whose steps, one by one behind the prompt, do not give what it gives of the whole.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qna._core.errors import InvalidInput, check_choice
from qna.bench.measure.calls import CallTimes, peaks_of_calls, time_calls
from qna.bench.measure.contender import DTYPES, FORWARD
from qna.bench.measure.gate import WrongOutput, check
from qna.bench.measure.harness import Plan
from qna.bench.measure.rows import Row
from qna.bench.subjects.peers.memory_room import refuse_above_memory
from qna.mixers import MIXERS

PREFILL, DECODE = "prefill", "decode"
# positions that are held to the whole, one by one behind the prompt
GATE = 4
# heads of queries, and of keys where a mixer lets them be fewer
HEADS, KV_HEADS = 8, 2


@dataclass(frozen=True)
class SequenceSetting:
    """What is asked of a mixer.

    Attributes:
        length: positions of the prompt.
        dim: channels.
        dtype: of weights, sequence and state.
    """

    length: int
    dim: int
    dtype: str

    def case(self, what: str) -> str:
        """Of a row: equal for all mixers."""
        return f"{what}-{self.length}x{self.dim}-{self.dtype}"


@dataclass(frozen=True)
class MeasuredSequence:
    """What was found of one mixer at one setting.

    Attributes:
        name: of the mixer.
        setting: that was asked.
        rows: figures; none where there is a reason.
        reason: why there are none; "WRONG: ..." where its steps do not give what the whole does.
    """

    name: str
    setting: SequenceSetting
    rows: tuple[Row, ...] = ()
    reason: str | None = None


def names() -> list[str]:
    """Every causal mixer of the registry."""
    return [name for name, row in MIXERS.items() if row.traits.causal]


def measured(
    which: Sequence[str], settings: Sequence[SequenceSetting], plan: Plan, *, memory: bool = True
) -> Iterator[MeasuredSequence]:
    """All mixers at all settings, on one core.

    Raises:
        UnknownName: for a mixer or a dtype that there is not, with the nearest names.
        InvalidInput: for one that is not causal, or a size that is not positive.
    """
    for name in which:
        if not MIXERS[check_choice("mixer", name, MIXERS)].traits.causal:
            raise InvalidInput(f"{name} is not causal; these are: {', '.join(names())}")
    for setting in settings:
        check_choice("dtype", setting.dtype, DTYPES)
        if min(setting.length, setting.dim) < 1:
            raise InvalidInput(f"sizes must be at least 1, got {setting.length} x {setting.dim}")
    for setting in settings:
        for name in which:
            yield one(name, setting, plan, memory=memory)


def arguments_of(name: str) -> dict[str, Any]:
    """How a mixer is built here: as its row says for long sequences, with the heads of all."""
    row = MIXERS[name]
    takes = inspect.signature(row.build).parameters
    heads = {"num_heads": HEADS, "kv_heads": KV_HEADS}
    given = {key: value for key, value in heads.items() if key in takes}
    return {**row.example.arguments, **given, **row.example.long}


def one(name: str, setting: SequenceSetting, plan: Plan, *, memory: bool = True) -> MeasuredSequence:
    """The figures of one mixer, or why there are none."""
    size = (1, setting.length + GATE, setting.dim)
    dtype: torch.dtype = getattr(torch, setting.dtype)
    arguments = arguments_of(name)
    try:
        with torch.device("meta"):
            mixer: Any = MIXERS[name].create(setting.dim, **arguments)
    except InvalidInput as error:
        return MeasuredSequence(name, setting, reason=str(error))
    weights = sum(p.numel() for p in mixer.parameters())
    # of the call whose peak is told there is a second one in another process
    needed = 2 * ((mixer.held(size) + weights) * dtype.itemsize + mixer.state_bytes(size, dtype))
    if (reason := refuse_above_memory("cpu", needed, "what is held and remembered")) is not None:
        return MeasuredSequence(name, setting, reason=reason)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    mixer = MIXERS[name].create(setting.dim, **arguments).to(dtype).eval()
    x = torch.randn(size, generator=generator).to(dtype)
    with torch.inference_mode():
        prefill = _Prefill(mixer, x[:, :-GATE])
        try:
            times = {PREFILL: time_calls({PREFILL: prefill}, plan=plan)}
            # the prompt is read once less where its state is that of the call that was timed
            verify(mixer, x, prefill.state)
        except WrongOutput as error:
            return MeasuredSequence(name, setting, reason=f"WRONG: {error}")
        except InvalidInput as error:
            return MeasuredSequence(name, setting, reason=str(error))
        calls = {PREFILL: prefill, DECODE: _decode(mixer, x[:, -1:], prefill.state)}
        times[DECODE] = time_calls({DECODE: calls[DECODE]}, plan=plan)
        extra = {"arguments": arguments, "state_bytes": prefill.state.nbytes}
        rows = [_row(name, setting, what, taken, extra) for what, taken in times.items()]
        if memory:
            rows += _peaks(rows, calls)
    return MeasuredSequence(name, setting, tuple(rows))


def verify(mixer: Any, x: Tensor, state: Any) -> None:
    """Hold single steps behind a prompt to the whole.

    Args:
        mixer: causal.
        x: (1, N + GATE, dim), the prompt and what follows.
        state: behind the prompt.

    Raises:
        WrongOutput: by how much they differ, where that is more than rounding.
    """
    whole, parts = mixer(x)[:, -GATE:].double(), []
    for i in range(GATE):
        y, state = mixer.step(x[:, x.shape[1] - GATE + i :][:, :1], state)
        parts.append(y)
    check("steps behind the prompt", torch.cat(parts, 1), whole, x.shape[1], x.dtype)


class _Prefill:
    """A prompt in one step; the last call's state stays."""

    def __init__(self, mixer: Any, x: Tensor):
        self._mixer, self._x = mixer, x
        self.state: Any = None

    def __call__(self) -> Tensor:
        # two states at once would count as memory of the call
        self.state = None
        y, self.state = self._mixer.step(self._x, self._mixer.init_state(1))
        return y


def _decode(mixer: Any, x: Tensor, state: Any) -> Callable[[], object]:
    """Each call goes on from the one before, as generation does."""
    held = [state]

    def call() -> Tensor:
        y, held[0] = mixer.step(x, held[0])
        return y

    return call


def _row(name: str, setting: SequenceSetting, what: str, times: CallTimes, extra: Mapping[str, Any]) -> Row:
    positions, stamp = setting.length if what == PREFILL else 1, times.stamp
    # percentiles of times are those of rates from the other end
    p50, p20, p80 = (positions / seconds for seconds in times.spread(what))
    sizes = {"length": setting.length, "dim": setting.dim, "held_to": "steps behind the prompt are the whole"}
    return Row(
        setting.case(what), name, FORWARD, "throughput", "tokens/s", p50, p80, p20,
        stamp.device, times.threads, stamp.torch, stamp.commit, stamp.date, {**sizes, **extra},
    )  # fmt: skip


def _peaks(rows: Sequence[Row], calls: Mapping[str, Callable[[], object]]) -> list[Row]:
    """A row of peak memory beside each of speed."""
    peaks = peaks_of_calls(calls)
    made = []
    for row in rows:
        peak = peaks[row.case.partition("-")[0]] / 2**20
        made.append(replace(row, metric="memory", unit="MiB", p50=peak, p20=peak, p80=peak))
    return made
