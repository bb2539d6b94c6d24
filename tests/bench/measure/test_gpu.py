"""Clocks of GPU work: with recordings and events that count, and on a card that is there."""

import pytest
import torch

from qna.bench.measure import gpu, local
from qna.bench.measure.harness import Measurement, Plan, measure
from qna.bench.measure.local import LocalProvider
from qna.bench.publish.terminal import grid_of


class Card:
    """Records and times runs by a clock of its own: a call takes `takes` seconds, and `start` from Python."""

    def __init__(self, takes, *, start=1e-4, breaks=None):
        self.takes, self.start, self.breaks = takes, start, breaks
        self.recorded, self.ran = [], []

    def call(self):
        return self.takes + self.start

    def record(self, run, calls):
        if self.breaks is not None and calls in self.breaks:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        self.recorded.append(calls)
        return lambda: self.takes * calls

    def timed(self, run, runs):
        self.ran.append(runs)
        return [run() for _ in range(runs)]

    def clock(self):
        return gpu.graph_clock(self.call, recorded=self.record, timed=self.timed)


@pytest.mark.parametrize(("takes", "calls"), [(2e-5, 20), (1e-4, 5), (3e-4, 2), (5e-4, 1), (9e-3, 1)])
def test_a_replay_takes_half_a_millisecond_or_twenty_calls(takes, calls):
    card = Card(takes)
    clock = card.clock()
    assert card.recorded == ([1] if calls == 1 else [1, calls])
    assert clock.extra == {"clock": "graph", "calls_per_replay": calls}
    # the time that Python takes to start a call is in none of them
    assert clock.seconds(4 * calls) == pytest.approx([takes] * 4)
    assert len(clock.seconds(1)) == 1
    assert len(clock.seconds(calls + 1)) == 2


@pytest.mark.parametrize("breaks", [{1}, {5}])
def test_what_cannot_be_recorded_is_called_from_python_and_says_why(breaks):
    clock = Card(1e-4, breaks=breaks).clock()
    assert clock.extra == {
        "clock": "eager",
        "not_recorded": "operation not permitted when stream is capturing",
    }
    assert clock.seconds(3) == pytest.approx([2e-4] * 3)


def test_the_terminal_says_what_was_not_recorded():
    notes = {"clock": "eager", "not_recorded": "it waits"}
    outcome = Measurement("op-1x8x8x16-k3-bfloat16", "A", "forward", 1, seconds=[1e-3], extra=notes)
    assert grid_of("title", [outcome])[1] == ["A, forward: called from Python, not recorded: it waits"]


def test_a_long_call_is_called_once_before_it_is_timed_and_never_recorded():
    card = Card(2.0)
    clock = card.clock()
    assert (card.recorded, card.ran) == ([], [1])
    assert clock.extra == {"clock": "eager"}
    assert clock.seconds(1) == [pytest.approx(2.0, rel=1e-3)]


class Work:
    """Work on a GPU that is not there."""

    device = torch.device("cuda")

    def __init__(self, *, recordable=True, fails=None):
        self.recordable, self.fails, self.extra = recordable, fails, {"by": "none"}

    def verify(self, mode):
        if self.fails is not None:
            raise self.fails

    def call(self, mode):
        return mode


@pytest.fixture
def clocks(monkeypatch):
    """The clocks that were made, by kind and mode; each call takes 1 ms."""
    made = []

    def clock(kind):
        def of(run):
            made.append((kind, run))
            return gpu.GpuClock(run, 1, {"clock": kind}, lambda run, runs: [1e-3] * runs)

        return of

    monkeypatch.setattr(local, "graph_clock", clock("graph"))
    monkeypatch.setattr(local, "eager_clock", clock("eager"))
    monkeypatch.setattr("qna.bench.measure.memory.peak_on_gpu", lambda run: made.append(("peak", run)) or 7)
    return made


def test_a_recording_is_made_once_for_a_mode_after_its_memory_is_taken(clocks):
    providers = [LocalProvider(name, "case", Work, 1, pinned=False) for name in "AB"]
    outcomes = measure(providers, ["forward", "backward"], Plan(seconds=0.01, turns=3))
    of_one_mode = [("peak", "{}"), ("peak", "{}"), ("graph", "{}"), ("graph", "{}")]
    assert clocks == [(kind, m.format(mode)) for mode in ("forward", "backward") for kind, m in of_one_mode]
    assert [len(o.seconds) for o in outcomes] == [10] * 4
    assert [o.peak for o in outcomes] == [7] * 4
    assert outcomes[0].extra == {"by": "none", "clock": "graph"}
    providers[0].close()
    assert providers[0].extra == {}


def test_models_are_called_from_python(clocks):
    provider = LocalProvider("A", "case", lambda: Work(recordable=False), 1, pinned=False)
    assert provider.time("step", 2) == [1e-3, 1e-3]
    assert clocks == [("eager", "step")]
    assert provider.extra["clock"] == "eager"


def test_where_memory_ends_there_is_a_reason_and_the_others_go_on(clocks):
    full = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 22.00 GiB.\nmore")
    providers = [
        LocalProvider("A", "case", lambda: Work(fails=full), 1, pinned=False),
        LocalProvider("B", "case", Work, 1, pinned=False),
    ]
    first, second = measure(providers, ["forward"], Plan(seconds=0.01, turns=3))
    assert first.reason == "OutOfMemoryError: CUDA out of memory. Tried to allocate 22.00 GiB."
    assert not first.seconds
    assert second.seconds


def test_what_fails_in_a_later_turn_has_no_time_and_the_others_go_on(clocks):
    asked = []

    class Fails(LocalProvider):
        def time(self, mode, calls):
            asked.append(calls)
            if len(asked) == 3:
                raise RuntimeError("an illegal memory access was encountered")
            return super().time(mode, calls)

    providers = [kind("A", "case", Work, 1, pinned=False) for kind in (Fails, LocalProvider)]
    first, second = measure(providers, ["forward"], Plan(seconds=0.01, turns=4))
    assert (first.seconds, first.peak) == ([], None)
    assert first.reason == "RuntimeError: an illegal memory access was encountered"
    assert len(second.seconds) == 10
    assert len(asked) == 3


def test_work_on_a_gpu_does_not_keep_to_one_core(clocks, monkeypatch):
    pinned = []
    monkeypatch.setattr(local, "use_threads", pinned.append)
    LocalProvider("A", "case", Work, 1, pinned=False).time("forward", 1)
    assert pinned == []
    LocalProvider("A", "case", Work, 2).time("forward", 1)
    assert pinned == [2]


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.gpu
@needs_gpu
def test_replays_compute_and_hold_one_result():
    x, results = torch.ones(2**20, device="cuda"), torch.zeros(1, device="cuda")

    def call():
        results.add_(x.add(1)[0])

    replay = gpu.record(call, 5)
    results.zero_()
    replay()
    assert results.item() == 10
    clock = gpu.graph_clock(call)
    assert clock.extra == {"clock": "graph", "calls_per_replay": gpu.MOST_CALLS}
    assert all(0 < s < 1e-3 for s in clock.seconds(100))


@pytest.mark.gpu
@needs_gpu
def test_a_call_that_waits_for_the_gpu_is_not_recorded_and_leaves_torch_whole():
    x = torch.ones(4, device="cuda")
    clock = gpu.graph_clock(lambda: x.sum().item())
    assert clock.extra["clock"] == "eager"
    assert "synchronizing" in clock.extra["not_recorded"]
    assert torch.cuda.get_sync_debug_mode() == 0
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.randn(3, device="cuda").isfinite().all()
    assert gpu.graph_clock(lambda: x + 1).extra["clock"] == "graph"


class FakeStream:
    device_index = 0

    def __init__(self, log, name):
        self.log, self.name = log, name

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def card(monkeypatch):
    """torch.cuda that writes down what is asked of it; returns the log."""
    log: list[str] = []
    default, side = FakeStream(log, "default"), FakeStream(log, "side")
    now = [default]

    class Inside:
        """Makes a stream the current one; a recording ends by itself only without an error."""

        def __init__(self, stream, *, recording=False):
            self.stream, self.recording = stream, recording

        def __enter__(self):
            self.before, now[0] = now[0], self.stream
            if self.recording:
                log.append("begin")

        def __exit__(self, kind, error, trace):
            if self.recording:
                log.append("end")
                if kind is not None:
                    raise RuntimeError("capture was invalidated")
            now[0] = self.before

    class Graph:
        def replay(self):
            log.append("replay")

        def reset(self):
            log.append("reset")

    fakes = {
        "current_stream": lambda: now[0],
        "set_stream": lambda stream: now.__setitem__(0, stream),
        "Stream": lambda index: side,
        "stream": Inside,
        "CUDAGraph": Graph,
        "graph": lambda graph, stream, capture_error_mode: Inside(stream, recording=True),
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": lambda mode: log.append(f"waiting: {mode}"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(gpu, "_streams", {})
    monkeypatch.setattr(gpu, "_broken", [])
    log.append("")
    return log


def call_on(log):
    return lambda: log.append(f"call on {torch.cuda.current_stream().name}")  # pyright: ignore


def test_a_recording_is_warmed_up_on_the_stream_that_records(card):
    replay = gpu.record(call_on(card), 2)
    replay()
    assert card[1:] == [
        "call on default", "side waits for default", "waiting: error", *["call on side"] * 3, "waiting: 0",
        "default waits for side", "begin", "call on side", "call on side", "end", "replay",
    ]  # fmt: skip


def test_after_a_recording_that_broke_torch_is_on_its_stream_and_the_graph_is_kept(card):
    def call():
        card.append("call")
        if "begin" in card:
            raise RuntimeError("not permitted")

    with pytest.raises(RuntimeError, match="invalidated"):
        gpu.record(call, 1)
    assert card[-4:] == ["begin", "call", "end", "reset"]
    assert torch.cuda.current_stream().name == "default"  # pyright: ignore
    assert len(gpu._broken) == 1


def test_a_call_that_waits_leaves_the_mode_as_it_was_and_begins_no_recording(card):
    def call():
        card.append("call")
        if "waiting: error" in card:
            raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(RuntimeError, match="synchronizing"):
        gpu.record(call, 1)
    assert card[-2:] == ["call", "waiting: 0"]
    assert "begin" not in card
    assert torch.cuda.current_stream().name == "default"  # pyright: ignore
