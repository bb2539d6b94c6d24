"""Memory that the CPU kernels cannot have."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qna.ops import learned_query_attention
from qna.ops._shared.window import Window
from qna.ops.learned_query import cpu

pytestmark = pytest.mark.skipif(bool(cpu.missing()), reason="; ".join(cpu.missing()) or "there")

SENTENCE = "kernels of qna.ops.learned_query_attention found no memory for their tiles; use smaller maps"
# two windows 2^31 positions apart, in one tile, and 20 000 numbers per position: more than an address space
WINDOW = {"stride": 2**31 - 1, "padding": 2**30}


@pytest.fixture(scope="module")
def inputs():
    g = torch.Generator().manual_seed(0)
    shapes = [(1, 5, 20_000, 1), (1, 5, 1, 1), (3, 20_000, 1), (3, 20_000, 1)]
    return [torch.randn(shape, generator=g) for shape in shapes]


def test_a_forward_without_memory_says_so_and_how_to_need_less(inputs):
    with pytest.raises(MemoryError, match=SENTENCE):
        learned_query_attention(*inputs, **WINDOW, backend="cpu")


def test_a_backward_without_memory_says_so_too(inputs):
    window = Window.over((5,), (3,), dilation=1, **WINDOW)
    grad = torch.ones(1, *window.out, 1, 1)
    with pytest.raises(MemoryError, match=SENTENCE):
        torch.ops.qna.learned_query_cpu_backward(grad, *inputs, None, True, (*window.flat, 1))


def test_the_next_call_finds_the_kernels_whole(inputs):
    with pytest.raises(MemoryError):
        learned_query_attention(*inputs, **WINDOW, backend="cpu")
    small = [t[..., :2, :] if t.shape[-2] > 2 else t for t in inputs]
    out, expected = (learned_query_attention(*small, backend=backend) for backend in ("cpu", "reference"))
    torch.testing.assert_close(out, expected)


# one number in memory stands for two thousand million positions
HUGE = """
import resource, sys
import torch
from qna.ops import learned_query_attention

def attend(size, stride, backend, grad=False):
    axes = len(size)
    scores, value = (torch.zeros(()).expand(1, *size, 1, 1) for _ in range(2))
    bias = torch.zeros(*[3] * axes, 1, 1, requires_grad=grad)
    try:
        learned_query_attention(scores, value, bias, stride=stride, backend=backend).sum().backward()
    except (MemoryError, RuntimeError) as error:
        print(type(error).__name__, " ".join(str(error).split()))

torch.set_num_threads(1)
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (room, room))
for backend in ("cpu", "reference"):
    attend((50_000, 40_000), 1, backend)
attend((2_000_000_000,), 10**6, "cpu")
attend((2_000_000_000,), 10**9, "cpu", grad=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells what is mapped")
def test_maps_of_two_thousand_million_positions_end_in_a_sentence():
    """Of torch's, with the bytes, where there is no room for a map, and of the kernels' for their tiles."""
    child = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True)
    assert not child.stderr
    no_map = "RuntimeError .*DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"
    expected = [no_map, no_map, f"MemoryError .*{SENTENCE}", f"MemoryError .*{SENTENCE}"]
    for line, pattern in zip(child.stdout.splitlines(), expected, strict=True):
        assert re.match(pattern, line)
