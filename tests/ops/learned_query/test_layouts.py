"""Values with the channels fastest are turned in registers: what lies behind is the same, bit for bit."""

import itertools

import pytest
import torch

from qna.ops import learned_query_attention
from qna.ops.learned_query import cpu

pytestmark = pytest.mark.skipif(bool(cpu.missing()), reason="; ".join(cpu.missing()) or "there")

SETS = cpu._native.instruction_sets() if cpu._native else []
# whole vectors on some processors, in one block, in chunks of channels or in blocks of heads, and others
HEADS = (2, 3, 4, 8, 16, 32)
DEPTHS = (2, 4, 6, 8, 16, 32)


@pytest.fixture(params=SETS)
def instruction_set(request):
    before = cpu.instruction_set()
    cpu._native.use(request.param)
    yield request.param
    cpu._native.use(before)


def outcome(inputs, upstream, **window):
    """Output and gradients; the output lies as the value does."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    out = learned_query_attention(*leaves, **window, backend="cpu")
    assert out.stride(-1) == leaves[1].stride(-1)
    return [out, *torch.autograd.grad(out, leaves, torch.empty_like(out).copy_(upstream))]


def check(dtype, heads, depth, **window):
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=g).to(dtype)  # noqa: E731
    scores, value = draw(1, 2, 19, 2, heads), draw(1, 2, 19, heads, depth)
    tables = draw(3, 3, 2, heads), draw(3, 3, 2, heads)
    upstream = draw(*learned_query_attention(scores, value, *tables, **window).shape)
    # heads fastest; and heads that lie apart, as in a slice of a wider map
    others = value.transpose(-1, -2).contiguous().transpose(-1, -2), torch.cat([value] * 2, -1)[..., :depth]
    first = outcome((scores, value, *tables), upstream, **window)
    for other in others:
        for a, b in zip(first, outcome((scores, other, *tables), upstream, **window), strict=True):
            assert torch.equal(a, b), (heads, depth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_the_layout_changes_no_bit(dtype, instruction_set):
    for heads, depth in itertools.product(HEADS, DEPTHS):
        check(dtype, heads, depth)


@pytest.mark.parametrize("window", [{"stride": 2}, {"factor": (1, 2)}, {"dilation": 2}], ids=str)
def test_nor_does_it_with_other_windows(window, instruction_set):
    check(torch.float32, 8, 8, **window)
    check(torch.bfloat16, 16, 8, **window)
