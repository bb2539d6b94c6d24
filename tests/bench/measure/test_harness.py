"""The method, with providers that record what is asked of them and a clock that they turn themselves."""

import dataclasses
import threading

import torch

from qna.bench.measure.gate import WrongOutput
from qna.bench.measure.harness import Plan, measure, percentiles
from qna.bench.measure.local import LocalProvider

PLAN = Plan(seconds=0.1, turns=3, least=6, patience=1.0)


class Recorder:
    """A provider that writes down every question; `takes` seconds per call."""

    case, threads, extra, apart = "case", 1, {}, False

    def __init__(self, name, log, *, takes=0.01, refuses=None, verify=None, peak=100):
        self.name, self.log, self.takes = name, log, takes
        self._refuses, self._verify, self._peak = refuses, verify, peak

    def refuses(self, mode):
        return self._refuses

    def verify(self, mode):
        self.log.append((self.name, "verify"))
        if self._verify is not None:
            raise self._verify

    def time(self, mode, calls):
        self.log.append((self.name, calls))
        return [self.takes] * calls

    def peak(self, mode):
        if isinstance(self._peak, Exception):
            raise self._peak
        return self._peak

    def close(self):
        pass


class Probed(Recorder):
    """Its memory is told from elsewhere: writes down who asks and what goes on then."""

    apart = True

    def __init__(self, name, log, *, answers=(100,), **others):
        super().__init__(name, log, **others)
        self._answers = list(answers)

    def peak(self, mode):
        alone = threading.current_thread() is threading.main_thread()
        self.log.append((self.name, "memory alone" if alone else "memory"))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_equality_comes_before_time_and_turns_are_interleaved():
    log = []
    providers = [Recorder(name, log) for name in "ABC"]
    outcomes = measure(providers, ["forward"], PLAN)
    gate = [(name, what) for what in ("verify", 1) for name in "ABC"]
    # 0.1 s of 0.01 s calls are 10 calls in turns of 4
    assert log == gate + [(n, 4) for n in "ABC"] + [(n, 4) for n in "ABC"] + [(n, 2) for n in "ABC"]
    assert [len(o.seconds) for o in outcomes] == [10, 10, 10]
    assert [o.peak for o in outcomes] == [100, 100, 100]


def test_slow_providers_get_the_least_number_of_calls():
    log = []
    (outcome,) = measure([Recorder("A", log, takes=0.9)], ["forward"], PLAN)
    assert len(outcome.seconds) == PLAN.least


def test_a_wrong_provider_has_no_time_in_any_mode():
    log = []
    wrong = Recorder("W", log, verify=WrongOutput("output differs by 1, rounding allows 1e-6"))
    outcomes = measure([wrong, Recorder("A", log)], ["forward", "forward+backward"], PLAN)
    of_wrong = [o for o in outcomes if o.provider == "W"]
    assert [o.seconds for o in of_wrong] == [[], []]
    assert all(o.reason == "WRONG: output differs by 1, rounding allows 1e-6" for o in of_wrong)
    assert [x for x in log if x[0] == "W"] == [("W", "verify")]
    assert all(o.seconds for o in outcomes if o.provider == "A")


def test_a_provider_above_the_patience_is_called_once_and_not_in_further_modes():
    log = []
    first, second = measure([Recorder("A", log, takes=3.0)], ["forward", "forward+backward"], PLAN)
    assert first.seconds == [3.0]
    assert second.seconds == []
    assert second.reason == "no more than forward: one took 3.0 s, above half of --patience 1"


def test_a_provider_above_half_the_patience_is_timed_but_not_in_further_modes():
    first, second = measure([Recorder("A", [], takes=0.6)], ["forward", "forward+backward"], PLAN)
    assert len(first.seconds) == PLAN.least
    assert second.seconds == []
    assert "one took 0.6 s" in second.reason


def test_refusals_and_failures_are_reasons():
    log = []
    failing = Recorder("F", log, verify=RuntimeError("no kernel\nfor this"))
    refusing = Recorder("R", log, refuses="even windows")
    no_memory = Recorder("M", log, peak=RuntimeError("killed"))
    outcomes = measure([failing, refusing, no_memory], ["forward"], PLAN)
    assert [o.reason for o in outcomes] == [
        "RuntimeError: no kernel",
        "even windows",
        "no memory figure: RuntimeError: killed",
    ]
    assert [bool(o.seconds) for o in outcomes] == [False, False, True]


def test_memory_from_elsewhere_is_taken_while_equality_is_checked_and_not_while_time_is_taken():
    log, asked = [], threading.Event()

    class Waits(Probed):
        def verify(self, mode):
            assert asked.wait(timeout=20)  # the last one's memory is asked while the first is verified
            super().verify(mode)

    class Tells(Probed):
        def peak(self, mode):
            asked.set()
            return super().peak(mode)

    outcomes = measure([Waits("A", log), Probed("B", log), Tells("C", log)], ["forward"], PLAN)
    assert [o.peak for o in outcomes] == [100, 100, 100]
    assert [entry for entry in log if entry[1] == "memory"] == [(name, "memory") for name in "CBA"]
    first_time = next(place for place, (_, what) in enumerate(log) if isinstance(what, int))
    assert {what for _, what in log[:first_time]} == {"verify", "memory"}
    assert all(isinstance(what, int) for _, what in log[first_time:])


def test_memory_that_failed_beside_another_is_asked_again_alone():
    log, killed = [], RuntimeError("killed")
    again = Probed("A", log, answers=[killed, 7])
    never = Probed("B", log, answers=[killed, killed])
    outcomes = measure([again, never], ["forward"], PLAN)
    assert [o.peak for o in outcomes] == [7, None]
    assert [o.reason for o in outcomes] == [None, "no memory figure: RuntimeError: killed"]
    assert [entry for entry in log if entry[1] == "memory alone"] == [(name, "memory alone") for name in "AB"]


def test_one_mode_without_a_memory_figure_leaves_the_other_s():
    provider = Probed("A", [], answers=[100, RuntimeError("killed"), RuntimeError("killed")])
    forward, backward = measure([provider], ["forward", "forward+backward"], PLAN)
    assert (forward.peak, forward.reason) == (100, None)
    assert (backward.peak, backward.reason) == (None, "no memory figure: RuntimeError: killed")
    assert forward.seconds
    assert backward.seconds


def test_a_wrong_provider_has_no_memory_and_none_is_asked_for_where_the_plan_leaves_it_out():
    log = []
    wrong = Probed("W", log, verify=WrongOutput("output differs"))
    (outcome,) = measure([wrong], ["forward"], PLAN)
    assert (outcome.peak, outcome.reason) == (None, "WRONG: output differs")
    (outcome,) = measure([Probed("A", log)], ["forward"], dataclasses.replace(PLAN, memory=False))
    assert outcome.seconds
    assert outcome.peak is None
    assert ("A", "memory") not in log


def test_percentiles():
    assert percentiles([5.0]) == (5.0, 5.0, 5.0)
    assert percentiles([1.0, 2.0, 3.0, 4.0, 5.0, 100.0]) == (3.5, 2.0, 5.0)


def test_calls_are_timed_one_by_one_after_one_that_is_not():
    now, calls = [0.0], []

    class Work:
        extra, device = {}, torch.device("cpu")

        def verify(self, mode):
            pass

        def call(self, mode):
            def run():
                calls.append(mode)
                now[0] += len(calls)  # the n-th call takes n seconds

            return run

    provider = LocalProvider("A", "case", Work, 1, clock=lambda: now[0])
    assert provider.time("forward", 3) == [2.0, 3.0, 4.0]
    assert provider.time("forward", 1) == [5.0]
