"""How a command ends that cannot go on: one sentence and a status, whatever stopped it."""

import os
import subprocess
import sys

import pytest

from qna.cli import list as listing
from qna.cli import main


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, os.strerror(28), "a\nb"), 1, r"a\nb: No space left on device"),
        (OSError("lost"), 1, "lost"),
        (MemoryError(), 1, "too little memory: a smaller size needs less"),
        (MemoryError("no room for tiles"), 1, "too little memory: no room for tiles"),
        (
            RuntimeError("DefaultCPUAllocator:\ncan't allocate memory"),
            1,
            "DefaultCPUAllocator: can't allocate",
        ),
    ],
)
def test_what_stops_a_command_is_one_sentence(error, status, said, monkeypatch, capsys):
    def stop(arguments):
        raise error

    monkeypatch.setattr(listing, "main", stop)
    assert main(["list"]) == status
    written = capsys.readouterr().err
    assert written.startswith("qna: ")
    assert said in written
    assert written.count("\n") == 1


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    def stop(arguments):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(listing, "main", stop)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["list"])


@pytest.mark.slow
def test_a_reader_that_leaves_early_gets_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    child = subprocess.run(
        [sys.executable, "-m", "qna", "list"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (child.returncode, child.stderr) == (1, b"")
