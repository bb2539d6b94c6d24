"""Memory of a training step in a process of its own: ``python -m tests.ops.peak OP BACKEND SIZE KERNEL``.

Prints the bytes at its peak beyond the inputs, and the bytes of the output.
"""

import resource
import sys

import torch

from qna.ops import OPS


def step(row, case, backend):
    leaves = {k: t.requires_grad_() for k, t in case.make().items()}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = row.function(**leaves, **case.window, backend=backend)
    out.sum().backward()
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), out.nbytes


def main(op, backend, size, kernel):
    torch.set_num_threads(1)
    row = next(row for row in OPS if row.name == op)
    case = next(case for case in row.cases if len(case.space) == 2 and case.heads == 8)
    step(row, case, backend)  # what is allocated once
    print(*step(row, case.grown(int(size), int(kernel)), backend))  # noqa: T201 (for its parent)


if __name__ == "__main__":
    main(*sys.argv[1:])
