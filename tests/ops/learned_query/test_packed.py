"""Scores and values in one map: the same numbers as apart, on every backend, with one gradient."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qna._core.errors import InvalidInput, NoBackend
from qna.ops import learned_query_attention, packed_learned_query_attention, register_flop_formulas
from qna.ops._shared.window import Window
from qna.ops.learned_query import cpu
from qna.ops.learned_query.cases import BY_NAME, CASES, Case
from qna.ops.learned_query.layout import heads_fastest, split

compiled_in = pytest.mark.skipif(bool(cpu.missing()), reason="; ".join(cpu.missing()) or "there")
BACKENDS = (pytest.param("cpu", marks=compiled_in), "reference")


def pack(inputs):
    """(packed, bias, weight) with the numbers of the op's inputs."""
    packed = torch.cat([inputs["value"].transpose(-1, -2), inputs["scores"]], -2)
    return [packed, inputs["bias"], inputs["weight"]]


def leaves(tensors):
    return [None if t is None else t.detach().requires_grad_() for t in tensors]


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_equals_the_op_on_its_two_parts(case, backend, weighted):
    packed, bias, weight = leaves(pack(case.make(weighted=weighted)))
    parameters = [t for t in (bias, weight) if t is not None]
    scores, value = leaves(split(packed, case.queries))
    together = packed_learned_query_attention(packed, bias, weight, **case.window, backend=backend)
    apart = learned_query_attention(scores, value, bias, weight, **case.window, backend=backend)
    assert torch.equal(together, apart)
    upstream = torch.randn(apart.shape, generator=torch.Generator().manual_seed(1))
    of_map, *rest = torch.autograd.grad(together, [packed, *parameters], upstream)
    of_scores, of_value, *expected = torch.autograd.grad(apart, [scores, value, *parameters], upstream)
    for a, e in zip([*split(of_map, case.queries), *rest], [of_scores, of_value, *expected], strict=True):
        assert torch.equal(a, e)
    assert of_map.is_contiguous()


@compiled_in
def test_the_output_has_the_heads_fastest():
    out = packed_learned_query_attention(*pack(BY_NAME["2d-3x3"].make()), backend="cpu")
    assert heads_fastest(out)


@compiled_in
@pytest.mark.parametrize("name", ["1d-even-strided", "2d-3x3", "2d-one-channel"])
def test_gradcheck(name):
    case = BY_NAME[name]
    inputs = leaves(pack(case.make(torch.float64)))
    assert torch.autograd.gradcheck(
        lambda *t: packed_learned_query_attention(*t, **case.window, backend="cpu"), inputs, fast_mode=True
    )


@compiled_in
@pytest.mark.parametrize("weighted", [True, False])
def test_opcheck(weighted):
    case = BY_NAME["2d-stride-3-rectangular"]
    tensors = pack(case.make(weighted=weighted))
    window = (*Window.over(case.space, case.kernel, padding="same", dilation=1, **case.window).flat, 1, 1)
    torch.library.opcheck(torch.ops.qna.learned_query_cpu.default, (None, *leaves(tensors), window))
    torch.library.opcheck(
        torch.ops.qna.learned_query_cpu_backward.default,
        (torch.randn(2, 5, 4, 3, 5), None, *tensors, None, True, window),
        test_utils=("test_schema", "test_faketensor"),
    )


@compiled_in
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic):
    def step(packed, bias, weight):
        return packed_learned_query_attention(packed * 2, bias, weight, stride=2, backend="cpu").sin()

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for space in ((7, 15), (9, 8)):
        tensors = leaves(pack(Case("c", space, (3, 3), heads=8, head_dim=8).make()))
        out, expected = compiled(*tensors), step(*tensors)
        torch.testing.assert_close(out, expected)
        grads = [torch.autograd.grad(y.sum(), tensors) for y in (out, expected)]
        for a, e in zip(*grads, strict=True):
            torch.testing.assert_close(a, e)


@compiled_in
def test_exports_with_a_dynamic_batch_and_map():
    class Op(torch.nn.Module):
        def forward(self, packed, bias):
            return packed_learned_query_attention(packed, bias, backend="cpu")

    packed, bias, _ = pack(Case("e", (7, 15), (3, 3), heads=8, head_dim=8).make())
    dims = {0: torch.export.Dim("b"), 1: torch.export.Dim("y"), 2: torch.export.Dim("x")}
    program = torch.export.export(Op(), (packed, bias), dynamic_shapes=(dims, None))
    other, _, _ = pack(Case("e", (6, 9), (3, 3), batch=3, heads=8, head_dim=8).make())
    expected = packed_learned_query_attention(other, bias, backend="reference")
    torch.testing.assert_close(program.module()(other, bias), expected)


def test_a_kernel_never_reads_addresses_of_another_device():
    for name in ("learned_query_cpu", "learned_query_cpu_backward"):
        has = [torch._C._dispatch_has_kernel_for_dispatch_key(f"qna::{name}", key) for key in ("CPU", "CUDA")]
        assert has == [True, False]


@compiled_in
def test_counts_the_flops_of_the_op():
    register_flop_formulas()
    counts = []
    for packed in (True, False):
        inputs = BY_NAME["2d-two-queries-d8"].make()
        tensors = leaves(pack(inputs) if packed else inputs.values())
        with FlopCounterMode(display=False) as counter:
            op = packed_learned_query_attention if packed else learned_query_attention
            op(*tensors, backend="cpu").sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


T = torch.zeros


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"packed": T(2, 7, 15)}, "packed must be (B, *space, d + L, h)"),
        ({"packed": T(2, 0, 15, 7, 3)}, "none of them empty but the batch, got packed (2, 0, 15, 7, 3)"),
        ({"packed": T(2, 7, 15, 2, 3)}, "L below d + L = 2, got packed (2, 7, 15, 2, 3), bias (3, 3, 2, 3)"),
        ({"packed": T(2, 7, 15, 7, 4)}, "h = 4 and L below"),
        ({"bias": T(3, 2, 3)}, "bias must be (*kernel, L, h) with 2 kernel axes"),
        ({"weight": T(3, 3, 1, 3)}, "weight must have the shape of bias, got packed"),
        ({"bias": T(3, 3, 2, 3, device="meta")}, "one device, got packed on cpu, bias on meta"),
        ({"packed": T(2, 7, 15, 7, 3, dtype=torch.int64)}, "got int64; try packed.float()"),
    ],
)
def test_tensors_that_do_not_fit(changes, words):
    tensors = dict(zip(("packed", "bias", "weight"), pack(BY_NAME["2d-3x3"].make()), strict=True))
    with pytest.raises(InvalidInput, match=r"^qna\.ops\.learned_query_attention: ") as error:
        packed_learned_query_attention(**{**tensors, **changes})
    assert words in str(error.value)


def test_an_error_describes_the_map():
    with pytest.raises(NoBackend, match=r"no backend can run packed \(2, 7, 15, 7, 3\), kernel \(3, 3\)"):
        packed_learned_query_attention(*pack(BY_NAME["2d-3x3"].make()), backend="triton")
