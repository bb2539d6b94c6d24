"""A provider whose work runs in another process, which it asks line by line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qna.bench.measure.gate import WrongOutput
from qna.bench.measure.lines import Lines


class RemoteProvider:
    """Work of a process that knows "verify", "time" and "peak", each for one question.

    Args:
        name: for tables.
        case: what it answers.
        question: the sizes; passed with everything that is asked.
        processes: what takes time, and what takes memory: its allocator returns freed blocks.
        threads: CPU threads.
        refuses: why it cannot run in a mode, or None.
        extra: notes for the row.
    """

    apart = True

    def __init__(
        self,
        name: str,
        case: str,
        question: dict[str, Any],
        processes: tuple[Lines, Lines],
        *,
        threads: int,
        refuses: Callable[[str], str | None] = lambda mode: None,
        extra: dict[str, Any] | None = None,
    ):
        self.name = name
        self.case = case
        self.threads = threads
        self.refuses = refuses
        self.extra = {"setting": question["setting"], **(extra or {})}
        self.question = question
        self.timing, self.probing = processes

    def verify(self, mode: str) -> None:
        """Let the process hold its work to the definition."""
        try:
            self.timing.ask(do="verify", question=self.question, mode=mode)
        except RuntimeError as error:
            kind, _, text = str(error).partition(": ")
            if kind == WrongOutput.__name__:
                raise WrongOutput(text) from None
            raise

    def time(self, mode: str, calls: int) -> list[float]:
        """Seconds of each call, by the process's clock."""
        return self.timing.ask(do="time", question=self.question, mode=mode, calls=calls)

    def peak(self, mode: str) -> int | None:
        """Bytes above the standing tensors."""
        return self.probing.ask(do="peak", question=self.question, mode=mode)

    def close(self) -> None:
        """Nothing here: the processes serve further providers."""
