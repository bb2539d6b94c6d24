"""The ways in which a run ends early, each with everything saved and one sentence that says how to go on."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class RunStopped(Exception):
    """A run ended before its last update.

    Attributes:
        status: what a command that made the run exits with.
    """

    def __init__(self, text: str, status: int = 1):
        super().__init__(text)
        self.status = status


class StopRequest:
    """While this context is open, SIGINT and SIGTERM ask for an end after the update that is under way.

    A second SIGINT ends at once, as usual. Outside the main thread signals are left alone.

    Attributes:
        signal: the signal that came, or None.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
