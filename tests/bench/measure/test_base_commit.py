"""Another commit is imported from its own tree, measured by this code, and leaves nothing behind."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from qna.bench.measure import base_commit, machine, memory
from qna.bench.measure.base_commit import BaseCommit
from qna.bench.measure.contender import BACKWARD, FORWARD, Setting
from qna.bench.measure.lines import Lines
from qna.bench.subjects import questions
from qna.bench.subjects.whole_model import STEP

BEFORE = "59d0c7f50a"
QUESTION = {
    "kind": "op",
    "name": "qna",
    "setting": dataclasses.asdict(Setting(batch=1, height=8, width=8, dim=16, window=3, heads=4)),
    "threads": 1,
}


WORKER = [sys.executable, str(Path(base_commit.__file__).with_name("worker.py"))]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The package as it was before its rooms, without what is compiled; a shallow clone has none."""
    folder = tmp_path_factory.mktemp("before")
    archive = ["git", "-C", str(machine.repository()), "archive", BEFORE, "src/qna"]
    packed = subprocess.run(archive, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"this checkout's history does not reach back to {BEFORE}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    return folder / "src"


@pytest.mark.slow
def test_older_packages_are_measured_by_this_code_and_a_fault_there_is_found(tree):
    layer = {**QUESTION, "kind": "layer", "name": "QnA2d"}
    images = {"batch": 1, "size": 16, "dtype": "float32", "device": "cpu"}
    model = {"kind": "model", "name": "qna_vit_nano_16", "setting": images, "threads": 1}
    with Lines([*WORKER, str(tree), questions.MODULE]) as process:
        for question, mode in ((QUESTION, BACKWARD), (layer, BACKWARD), (model, FORWARD), (model, STEP)):
            process.ask(do="verify", question=question, mode=mode)
            assert all(t > 0 for t in process.ask(do="time", question=question, mode=mode, calls=2))
            if memory.cannot_probe() is None:
                assert process.ask(do="peak", question=question, mode=mode) >= 0

    # what runs is the other tree: break it there, and a new process finds it
    reference = tree / "qna" / "ops" / "learned_query" / "reference.py"
    source = reference.read_text()
    reference.write_text(source.replace("return out.to(value.dtype)", "return 1.01 * out.to(value.dtype)"))
    assert reference.read_text() != source
    with (
        Lines([*WORKER, str(tree), questions.MODULE]) as broken,
        pytest.raises(RuntimeError, match="WrongOutput: output differs"),
    ):
        broken.ask(do="verify", question={**QUESTION, "name": "qna-reference"}, mode="forward")


@pytest.mark.long  # compiles the kernels
@pytest.mark.slow
def test_a_commit_is_built_measured_and_leaves_nothing_behind():
    with BaseCommit("HEAD", questions.MODULE) as base:
        timing, probing = base.processes
        assert str(base.tree) in worktrees()
        timing.ask(do="verify", question=QUESTION, mode=BACKWARD)
        assert all(t > 0 for t in timing.ask(do="time", question=QUESTION, mode=BACKWARD, calls=3))
        assert probing.ask(do="peak", question=QUESTION, mode=BACKWARD) >= 0
    assert not base.folder.exists()
    assert str(base.tree) not in worktrees()


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
