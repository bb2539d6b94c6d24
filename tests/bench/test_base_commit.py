"""Another commit is imported from its own tree, measured by this code, and leaves nothing behind."""

import dataclasses
import subprocess

import pytest

from qna.bench import machine
from qna.bench.base_commit import BaseCommit
from qna.bench.peers.contender import BACKWARD, Setting

QUESTION = {
    "kind": "op",
    "name": "qna",
    "setting": dataclasses.asdict(Setting(1, 8, 8, 16, 3, heads=4)),
    "threads": 1,
}


@pytest.mark.slow
def test_the_same_case_at_head():
    trees = worktrees()
    with BaseCommit("HEAD") as base:
        timing, probing = base.processes
        assert str(base.tree) in worktrees()
        timing.ask(do="verify", question=QUESTION, mode=BACKWARD)
        assert all(t > 0 for t in timing.ask(do="time", question=QUESTION, mode=BACKWARD, calls=3))
        assert probing.ask(do="peak", question=QUESTION, mode=BACKWARD) >= 0
        folder = base.folder
    assert not folder.exists()
    assert worktrees() == trees


@pytest.mark.slow
def test_a_fault_of_the_other_commit_is_found_there():
    base = BaseCommit("HEAD")
    reference = base.package / "qna" / "ops" / "learned_query" / "reference.py"
    source = reference.read_text()
    reference.write_text(source.replace("return out.to(value.dtype)", "return 1.01 * out.to(value.dtype)"))
    assert reference.read_text() != source
    with base:
        question = {**QUESTION, "name": "qna-reference"}
        with pytest.raises(RuntimeError, match="WrongOutput: output differs"):
            base.processes[0].ask(do="verify", question=question, mode="forward")


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
