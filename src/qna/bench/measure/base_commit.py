"""The same cases at another commit of this repository, measured side by side."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from qna._core.errors import InvalidInput
from qna.bench.measure import machine, memory
from qna.bench.measure.lines import Lines


class BaseCommit:
    """A commit in a worktree of its own in a temporary folder, with processes that import qna from there.

    This version's benchmark code measures both. A commit with native code is built and installed into the
    temporary folder.

    Args:
        commit: whatever git resolves to a commit.
        module: dotted name of what makes work from questions there; see `worker`.

    Raises:
        InvalidInput: not a checkout, no such commit, or it cannot be built.
    """

    def __init__(self, commit: str, module: str):
        self.root = machine.repository()
        found = self._git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
        if found.returncode:
            raise InvalidInput(f"{self.root} has no commit {commit!r}")
        self.commit = found.stdout.strip()[:10]
        self.folder = Path(tempfile.mkdtemp(prefix="qna-base-"))
        self.tree = self.folder / "tree"
        added = self._git("worktree", "add", "--detach", str(self.tree), self.commit)
        if added.returncode:
            shutil.rmtree(self.folder)
            raise InvalidInput(f"git worktree add: {added.stderr.strip()}")
        try:
            self.package = self._importable()
        except InvalidInput:
            self.close()
            raise
        command = [sys.executable, str(Path(__file__).with_name("worker.py")), str(self.package), module]
        self.processes = Lines(command, memory.KEEP_FREED_BLOCKS), Lines(command, memory.RETURN_FREED_BLOCKS)

    def __enter__(self) -> BaseCommit:
        for process in self.processes:
            process.ask(do="ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.close()
        self.close()

    def close(self) -> None:
        """Remove the worktree and the folder."""
        self._git("worktree", "remove", "--force", str(self.tree))
        shutil.rmtree(self.folder, ignore_errors=True)

    def _importable(self) -> Path:
        """Folder to import qna from."""
        if not (self.tree / "CMakeLists.txt").exists():
            return self.tree / "src"
        built = self.folder / "built"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        run = subprocess.run(
            [*command, str(built), str(self.tree)], capture_output=True, text=True, check=False
        )
        if run.returncode:
            last = run.stderr.strip().splitlines()[-1:]
            raise InvalidInput(f"commit {self.commit} cannot be built: {' '.join(last)}")
        return built

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "-C", str(self.root), *arguments], capture_output=True, text=True, check=False
        )
