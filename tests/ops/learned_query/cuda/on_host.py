"""The CUDA kernels as plain C++ for the processor at hand, by a card made of fibers (host/machine.cuh)."""

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from qna.ops._shared.cuda.driver import Limits
from qna.ops.learned_query.cuda import backend
from qna.ops.learned_query.library import OP

HOST = Path(__file__).parent / "host"
COMPILER = shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs g++")
# an access that no card could make, because its address is no multiple of its size, ends the process
FLAGS = [
    "-O1",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-Wno-unknown-pragmas",
]
FLAGS += ["-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error"]
# of an H200
LIMITS = Limits(227 * 1024, 228 * 1024)

_folder = tempfile.TemporaryDirectory()
order = {"backwards": False}


@cache
def library(program):
    """A kernel as a function of a shared library."""
    source = Path(_folder.name) / f"{program.kernel}-{abs(hash(program))}.cpp"
    source.write_text(f'#include <machine.cuh>\n#include "{program.kernel}.cu"\nQNA_HOST({program.kernel})\n')
    binary = source.with_suffix(".so")
    command = [COMPILER, *FLAGS, f"-I{HOST}", f"-I{program.folder}", *program.defines, source, "-o", binary]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(binary))


def run_on_host(launch):
    numbers = (launch.blocks, launch.threads, launch.shared, int(order["backwards"]))
    library(launch.program).run(ctypes.byref(launch.call), *numbers)


# the backend's own functions as an op of torch on the CPU, so that autograd calls them
ATTEND = OP.register("cuda_on_host", backend.forward, backend.backward, device="cpu", keeps=False)
