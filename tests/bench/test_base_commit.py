"""Another commit is imported from its own tree, measured by this code, and leaves nothing behind."""

import dataclasses
import subprocess

import pytest

from qna.bench.measure import machine
from qna.bench.measure.base_commit import BaseCommit
from qna.bench.measure.contender import BACKWARD, Setting
from qna.bench.measure.lines import Lines

QUESTION = {
    "kind": "op",
    "name": "qna",
    "setting": dataclasses.asdict(Setting(1, 8, 8, 16, 3, heads=4)),
    "threads": 1,
}


@pytest.mark.slow
def test_the_same_case_at_head_and_a_fault_that_is_there_only():
    trees = worktrees()
    with BaseCommit("HEAD") as base:
        timing, probing = base.processes
        assert str(base.tree) in worktrees()
        timing.ask(do="verify", question=QUESTION, mode=BACKWARD)
        assert all(t > 0 for t in timing.ask(do="time", question=QUESTION, mode=BACKWARD, calls=3))
        assert probing.ask(do="peak", question=QUESTION, mode=BACKWARD) >= 0

        # what runs is the other tree: break it there, and a new process finds it
        reference = base.package / "qna" / "ops" / "learned_query" / "reference.py"
        source = reference.read_text()
        reference.write_text(
            source.replace("return out.to(value.dtype)", "return 1.01 * out.to(value.dtype)")
        )
        assert reference.read_text() != source
        question = {**QUESTION, "name": "qna-reference"}
        with (
            Lines(timing.command) as broken,
            pytest.raises(RuntimeError, match="WrongOutput: output differs"),
        ):
            broken.ask(do="verify", question=question, mode="forward")
        folder = base.folder
    assert not folder.exists()
    assert worktrees() == trees


def test_commit_and_repository_of_this_checkout():
    root = machine.repository()
    assert (root / "src" / "qna").is_dir()
    head = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert head.stdout.startswith(machine.commit().rstrip("+"))


def worktrees():
    root = str(machine.repository())
    run = subprocess.run(["git", "-C", root, "worktree", "list"], capture_output=True, text=True, check=True)
    return run.stdout
