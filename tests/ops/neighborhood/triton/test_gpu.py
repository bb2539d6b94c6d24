"""The Triton backend on a GPU."""

import pytest
import torch

from qna.ops import neighborhood_attention
from qna.ops._shared.triton.runtime import INTERPRETED
from qna.ops.neighborhood import ROW
from qna.ops.neighborhood.cases import BY_NAME, CASES, NeighborhoodCase
from tests.ops.equality import assert_equals_reference
from tests.ops.neighborhood import drawn
from tests.ops.neighborhood.equality import results

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
    pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET is set"),
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# boxes cut by the border, several chunks, wide heads
LARGER = (
    NeighborhoodCase("stage", (56, 56), (7, 7), heads=4, head_dim=32, biased=True, extra=3, masked=True),
    NeighborhoodCase("line", (1000,), (129,), heads=2, head_dim=64, options={"is_causal": True}),
    NeighborhoodCase("wide", (20, 21), (5, 5), heads=1, head_dim=256, biased=True),
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*CASES, *LARGER], ids=lambda case: case.name)
def test_equals_the_reference(case, dtype):
    assert_equals_reference(ROW, case, case.make(dtype, "cuda"), "triton")


def test_random_calls_equal_the_reference():
    for seed in range(200):
        case = drawn.call(seed)
        assert_equals_reference(ROW, case, case.make(torch.float32, "cuda", seed=seed), "triton")


def test_two_runs_agree_bit_for_bit():
    case = LARGER[0]
    first, second = (results(case.make(torch.bfloat16, "cuda"), case.window, "triton") for _ in range(2))
    assert all(torch.equal(first[name], t) for name, t in second.items())


def test_memory_does_not_grow_with_the_window():
    def peak(kernel):
        case = BY_NAME["2d-plain"].grown(256, kernel)
        made = {name: t.requires_grad_() for name, t in case.make(torch.bfloat16, "cuda").items()}
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        neighborhood_attention(**made, **case.window, backend="triton").sum().backward()
        return torch.cuda.max_memory_allocated() - before

    peak(3)
    assert peak(13) <= 1.05 * peak(3)
