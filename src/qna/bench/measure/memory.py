"""Peak memory of one call: of a fresh process on CPU, of the allocator on a GPU.

On CPU a helper process imports everything once, without starting a thread, and forks a fresh process per
question. That process builds the tensors, calls once to settle caches and code, resets the kernel's record
of its peak resident size, calls again, and answers by how much the record grew above the size before.

Two things make that number mean something. ``MALLOC_MMAP_THRESHOLD_`` makes every block of 64 KiB or more
its own mapping, which goes back to the system when it is freed: without it glibc keeps freed blocks, and a
second call would seem to need no memory. And the record is ``VmHWM`` of /proc/self/status, reset through
/proc/self/clear_refs, not ``ru_maxrss``, which a process inherits from the one that started it.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from qna.bench.measure.lines import Lines, answer

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
OOM_SCORE = Path("/proc/self/oom_score_adj")
# of glibc, for processes that answer about memory, and for those that are timed
RETURN_FREED_BLOCKS = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
KEEP_FREED_BLOCKS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


def return_freed_blocks() -> None:
    """Let this process give back what it frees, block by block, where its allocator is glibc's.

    The contrary of `qna._core.allocator`, which a process with an older version of qna does not have.
    """
    for parameter, value in (
        (-4, 65536),
        (-3, 65536),
        (-1, 65536),
    ):  # mmap_max, mmap_threshold, trim_threshold
        _of_libc("mallopt")(parameter, value)


def cannot_probe() -> str | None:
    """Why peak memory cannot be told on this system's CPU, or None."""
    if not hasattr(os, "fork") or not os.access(RESET, os.W_OK):
        return "peak memory on CPU is read from Linux's /proc/self/clear_refs, which this system lacks"
    return None


def peak_on_cpu(run: Callable[[], object]) -> int:
    """Bytes by which a second call grows the resident size of this process at most."""
    run()
    _of_libc("malloc_trim")(0)  # free blocks between those in use would serve the second call unseen
    RESET.write_text("5")
    before = _resident("VmRSS")
    result = run()
    peak = _resident("VmHWM")
    del result
    return max(0, peak - before)


def peak_in_fork(make: Callable[[], Callable[[], object]]) -> int:
    """`peak_on_cpu` of the call that `make` gives, both in a process of its own, forked from this one.

    Raises:
        RuntimeError: the process was killed, or raised; then the text is its own.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # newer Pythons warn of threads that a forked process has not: this one waits for none of them
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            # where memory ends, this process goes and not the one that asks
            OOM_SCORE.write_text("1000")
            return_freed_blocks()
            text = str(peak_on_cpu(make()))
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)  # no clean-up: buffers and exit handlers are the parent's
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text.isdigit():
        raise RuntimeError(text or "the measured process was killed, probably for want of memory")
    return int(text)


def peak_on_gpu(run: Callable[[], object]) -> int:
    """Bytes that one call allocates at most above what stands before it."""
    import torch

    run()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = run()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    del result
    return peak - before


def probe(target: str) -> Lines:
    """The helper process: ``ask(do="peak", question=...)`` gives bytes.

    Args:
        target: "module:function", which turns a question into the call to measure; the module may have a
            function ``preload`` that imports what calls need.
    """
    path = os.pathsep.join(p for p in sys.path if p)
    environment = {**RETURN_FREED_BLOCKS, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return Lines([sys.executable, "-m", "qna.bench.measure.memory", target], environment)


def _serve(target: str) -> None:
    module, name = target.split(":")
    target_module = importlib.import_module(module)
    make = getattr(target_module, name)
    # once, here: what a forked process has to import, it imports every time
    getattr(target_module, "preload", lambda: None)()

    answer({"peak": lambda question: peak_in_fork(lambda: make(question))})


def _of_libc(name: str) -> Callable[..., object]:
    """A function of this process's C library; one that does nothing where it has none of that name."""
    library = ctypes.CDLL(None) if os.name == "posix" else None
    return getattr(library, name, lambda *arguments: None)


def _resident(field: str) -> int:
    """Bytes of a field of /proc/self/status, which is in KiB."""
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(field + ":"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    _serve(sys.argv[1])
