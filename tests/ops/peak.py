"""Memory of training steps in a process of its own: ``python -m tests.ops.peak OP BACKEND SIZExKERNEL...``.

Prints for each the bytes at its peak beyond the inputs, and the bytes of the output.
"""

import math
import re
import sys
from pathlib import Path

import torch

from qna.ops import OPS
from tests.ops.equality import leaf


def resident(name):
    """Bytes of this process in memory, now (VmRSS) or at most (VmHWM)."""
    return 1024 * int(re.search(rf"{name}:\s*(\d+)", Path("/proc/self/status").read_text())[1])


def step(row, case, backend):
    leaves = {k: leaf(t) for k, t in case.make().items()}
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of drawing them
    before = resident("VmRSS")
    out = row.function(**leaves, **case.window, backend=backend)
    out.sum().backward()
    return resident("VmHWM") - before, out.nbytes


def numbers(case):
    """How many a position of the map has."""
    return sum(t.numel() for t in case.make().values() if t.ndim > 3) / math.prod(case.space)


def main(op, backend, *sizes):
    torch.set_num_threads(1)
    row = next(row for row in OPS if row.name == op)
    case = max((c for c in row.cases if len(c.space) == 2), key=numbers, default=row.cases[0])
    step(row, case, backend)  # what is allocated once
    for size in sizes:
        print(*step(row, case.grown(*map(int, size.split("x"))), backend))  # noqa: T201 (for its parent)


if __name__ == "__main__":
    main(*sys.argv[1:])
