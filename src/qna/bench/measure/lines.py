"""Questions and answers as JSON lines with a process that measures: another commit, or another framework."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any

from qna._core.errors import InvalidInput
from qna.bench.measure.cores import all_cores


class Lines:
    """A process that answers one JSON object per line; its errors become `RuntimeError` here.

    Args:
        command: the process, started when the first question is asked.
        environment: variables beside this process's own.
    """

    def __init__(self, command: list[str], environment: dict[str, str] | None = None):
        self.command = command
        self.environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[str] | None = None
        # a file, not a pipe: a pipe that no one reads would stop a talkative process
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by close()

    def ask(self, **question: Any) -> Any:
        """The answer's "value".

        Raises:
            RuntimeError: the process failed at this question; the text is its own.
            InvalidInput: the process cannot be started, or ended.
        """
        process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:] or ["it ended without a word"]
            raise InvalidInput(f"{' '.join(self.command[:3])}: {last[0]}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._process.stdin
            assert self._process.stdout
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.stdout.close()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._errors.close()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[str]:
        try:
            with all_cores():
                self._process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    text=True,
                    env=self.environment,
                )
        except OSError as error:
            raise InvalidInput(f"cannot start {self.command[0]}: {error.strerror}") from None
        return self._process


def answer(handlers: dict[str, Any]) -> None:
    """Serve: each line of stdin names "do" and that handler's arguments.

    What handlers print goes to stderr: stdout carries answers only.
    """
    replies, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        question = json.loads(line)
        try:
            reply = {"value": handlers[question.pop("do")](**question)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
