"""Questions to other processes: answers, errors of theirs, and processes that end."""

import sys

import pytest

from qna._core.errors import InvalidInput
from qna.bench.measure.cores import CORES
from qna.bench.measure.gate import WrongOutput
from qna.bench.measure.lines import Lines
from qna.bench.measure.machine import use_threads
from qna.bench.measure.remote import RemoteProvider

SERVER = """
import os, sys
from qna.bench.measure.lines import answer
class WrongOutput(Exception): pass
def verify(question, mode):
    print("talk that is no answer")
    if mode == "wrong": raise WrongOutput("output differs by 1")
    if mode == "broken": raise ValueError("no such layer")
answer({
    "verify": verify,
    "time": lambda question, mode, calls: [question["takes"]] * calls,
    "peak": lambda question, mode: 7,
    "cores": lambda: sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
    "end": lambda: sys.exit("gone"),
})
"""


@pytest.fixture
def process():
    with Lines([sys.executable, "-c", SERVER]) as lines:
        yield lines


def provider(process):
    question = {"takes": 0.5, "setting": {"window": 3}}
    return RemoteProvider("qna@abc", "case", question, (process, process), threads=1)


def test_a_remote_provider_measures_there(process):
    remote = provider(process)
    remote.verify("forward")
    assert remote.time("forward", 3) == [0.5, 0.5, 0.5]
    assert remote.peak("forward") == 7
    assert remote.extra == {"setting": {"window": 3}}


def test_wrong_output_there_is_wrong_output_here_and_errors_are_errors(process):
    with pytest.raises(WrongOutput, match=r"^output differs by 1$"):
        provider(process).verify("wrong")
    with pytest.raises(RuntimeError, match="ValueError: no such layer"):
        provider(process).verify("broken")
    assert process.ask(do="peak", question={}, mode="forward") == 7


def test_a_process_gets_all_cores_though_this_one_keeps_to_one(process):
    use_threads(1)
    assert process.ask(do="cores") in (list(CORES), [])


def test_a_process_that_ends_or_cannot_start_is_one_sentence(process):
    with pytest.raises(InvalidInput, match="gone"):
        process.ask(do="end")
    with Lines(["/no/such/program"]) as none, pytest.raises(InvalidInput, match="cannot start /no/such"):
        none.ask(do="peak")
