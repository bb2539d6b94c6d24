"""Memory of a training step in a process of its own: ``python -m tests.ops.peak OP BACKEND SIZE KERNEL``.

Prints the bytes at its peak beyond the inputs, and the bytes of the output.
"""

import resource
import sys

import torch

from qna.ops import OPS


def step(row, case, backend, device):
    leaves = {k: t.requires_grad_() for k, t in case.make(device=device).items()}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    out = row.function(**leaves, **case.window, backend=backend)
    bytes_of_output = out.nbytes
    out.sum().backward()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() - before, bytes_of_output
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), bytes_of_output


def main(op, backend, size, kernel):
    torch.set_num_threads(1)
    row = next(row for row in OPS if row.name == op)
    device = row.backend(backend).device
    case = next(case for case in row.cases if len(case.space) == 2 and case.heads == 8)
    step(row, case, backend, device)  # what is allocated once
    print(*step(row, case.grown(int(size), int(kernel)), backend, device))  # noqa: T201 (for its parent)


if __name__ == "__main__":
    main(*sys.argv[1:])
