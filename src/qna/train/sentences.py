"""What a run says when it ends early: what is kept, and how to go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qna.train.checkpoint import Progress
from qna.train.stop import RunStopped


@dataclass
class Sentences:
    """Makes the sentences of a run.

    Attributes:
        folder: of the run.
        checkpoint: name of the file that it goes on from.
        total: updates of the whole run.
        saved: update that the checkpoint was written after; None before the first.
    """

    folder: Path
    checkpoint: str
    total: int
    saved: int | None = None

    def kept(self) -> str:
        """What has been saved."""
        if self.saved is None:
            return "nothing has been saved yet"
        path = self.folder / self.checkpoint
        if not path.is_file():
            return f"{path}, which held the run up to update {self.saved}, is no longer there"
        return f"{path} is whole and holds the run up to update {self.saved} of {self.total}"

    def way_on(self) -> str:
        """How to go on."""
        if self.saved is None:
            return "begin again where there is room"
        if not (self.folder / self.checkpoint).is_file():
            return "put the folder back to go on, or begin again"
        return f"go on with `qna train --resume {self.folder}`"

    def stopped(self, number: int) -> RunStopped:
        """The end that signal `number` asked for."""
        name = signal.Signals(number).name
        return RunStopped(f"stopped by {name}; {self.kept()}; {self.way_on()}", 128 + number)

    def diverged(self, what: object, progress: Progress, rate: float) -> RunStopped:
        """The end of a run that has left the numbers; going on would make the same draws and end so again."""
        where = f"update {progress.step + 1} (learning rate {rate:.3g}, epoch {progress.epoch + 1})"
        instead = f"try a lower --lr or --clip 1, from there with --weights {self.folder / self.checkpoint}"
        return RunStopped(f"{what} at {where}; {self.kept()}; {instead}")

    def incomplete(self, missing: list[str]) -> RunStopped:
        """The end of a run whose files were taken away."""
        names = ", ".join(missing)
        return RunStopped(f"{self.folder} has lost files while the run was under way: {names}")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Whatever cannot be written inside the block ends the run."""
        try:
            yield
        except OSError as error:
            text = f"cannot write to {self.folder}: {error}; {self.kept()}; {self.way_on()}"
            raise RunStopped(text) from error
