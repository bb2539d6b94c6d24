"""Memory that the CPU kernels cannot have."""

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
