"""What is written beside every figure: device, versions, commit, date."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

import qna
from qna._core.errors import InvalidInput
from qna.bench.measure import cores


@dataclass(frozen=True)
class Stamp:
    """Where and with what a figure was measured."""

    device: str
    torch: str
    commit: str
    date: str

    @classmethod
    def now(cls, device: str) -> Stamp:
        """The stamp of a measurement that begins now on `device`, "cpu" or "cuda"."""
        date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        return cls(device_name(device), torch.__version__, commit(), date)


def device_name(device: str) -> str:
    """Name of the GPU, or of the processor with its widest vectors and core count."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores"


def commit() -> str:
    """Commit of the checkout that qna is imported from, "+" after it where files differ; else its version."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return f"v{qna.__version__}"


def repository() -> Path:
    """Root of the checkout that qna is imported from.

    Raises:
        InvalidInput: qna was installed, there is no checkout.
    """
    try:
        return Path(_git("rev-parse", "--show-toplevel"))
    except (OSError, subprocess.CalledProcessError):
        raise InvalidInput(
            f"qna is imported from {Path(qna.__file__).parent}, which is no git checkout; install it with "
            "`pip install --editable` to compare commits"
        ) from None


def use_threads(count: int) -> None:
    """Give torch `count` threads, and this process as many cores."""
    cores.pin(count)
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


@contextmanager
def keeping_to(threads: int) -> Iterator[None]:
    """`use_threads` inside; threads and cores are as before afterwards."""
    before = torch.get_num_threads()
    try:
        with cores.all_cores():  # which come back to what they were
            use_threads(threads)
            yield
    finally:
        torch.set_num_threads(before)


def _git(*arguments: str) -> str:
    folder = Path(qna.__file__).parent
    run = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )  # fmt: skip
    return run.stdout.strip()
