"""The CUDA kernels compiled for the host: outputs and gradients against the reference, twice."""

from dataclasses import replace

import pytest
import torch

from qna.ops import learned_query_attention
from qna.ops._shared.window import Window
from qna.ops.learned_query import ROW
from qna.ops.learned_query.cases import CASES
from qna.ops.learned_query.cuda import backend
from qna.ops.learned_query.cuda.backend import declines
from qna.ops.learned_query.inputs import Inputs
from tests.ops import equality
from tests.ops.learned_query.cuda.cases import LAYERS, SMALL
from tests.ops.learned_query.cuda.on_host import ATTEND, needs_compiler
from tests.ops.learned_query.triton.interpreter import (
    far_above,
    far_below,
    heads_fastest,
    one_far_above,
    span,
)
from tests.ops.tolerance import assert_close_to_oracle

pytestmark = [needs_compiler, pytest.mark.usefixtures("card")]


def attend(scores, value, bias, weight=None, *, backend, **window):
    """The op, with the kernels on the host as one of its backends."""
    if backend != "cuda_on_host":
        return learned_query_attention(scores, value, bias, weight, backend=backend, **window)
    geometry = {"stride": 1, "padding": "same", "dilation": 1, "factor": 1, **window}
    inputs = Inputs.apart(scores, value, bias, weight, geometry)
    assert not declines(inputs)
    return ATTEND(*inputs.arguments)


HOST = replace(ROW, function=attend)


def takes(case):
    made = case.make()
    geometry = {"stride": 1, "padding": "same", "dilation": 1, "factor": 1, **case.window}
    return not declines(Inputs.apart(*made.values(), geometry))


def long(cases, *quick):
    """Cases as parameters, `long` but for the `quick` ones."""
    return [pytest.param(c, id=c.name, marks=[] if c.name in quick else [pytest.mark.long]) for c in cases]


TAKEN = [case for case in CASES if takes(case)]


def test_of_the_shared_cases_it_takes_those_of_its_windows():
    names = {case.name for case in TAKEN}
    assert {"2d-3x3", "2d-one-pixel", "2d-windows-outside", "2d-two-queries-d8-k7", "2d-one-channel"} <= names
    assert not names & {"1d", "2d-stride-2", "2d-dilated", "2d-even", "2d-upsampled", "3d"}


@pytest.mark.parametrize("case", long(TAKEN, "2d-3x3", "2d-windows-outside"))
def test_shared_cases_equal_the_reference(case):
    equality.assert_equals_reference(HOST, case, case.make(), "cuda_on_host")


@pytest.mark.parametrize("case", long(LAYERS, "small"))
@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        pytest.param(torch.float32, marks=pytest.mark.long),
        pytest.param(torch.float16, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_the_layout_of_the_layers(case, dtype):
    equality.assert_equals_reference(HOST, case, heads_fastest(case.make(dtype)), "cuda_on_host")


@pytest.mark.long
@pytest.mark.parametrize("case", LAYERS[:3], ids=lambda c: c.name)
def test_without_weights(case):
    inputs = {**heads_fastest(case.make()), "weight": None}
    equality.assert_equals_reference(HOST, case, inputs, "cuda_on_host")


def both(inputs, case):
    """Output and gradients of the kernels, and the reference's in fp64."""
    double = {k: t.double() for k, t in inputs.items()}
    ours = equality.run(HOST, inputs, case.window, "cuda_on_host")
    return ours, equality.run(HOST, double, case.window, "reference", torch.float32)


@pytest.mark.parametrize(
    ("change", "size"),
    [(far_below, 1000), (far_above, 1000), (span, 200), (one_far_above, 1)],
)
def test_scores_out_of_range_of_a_tile(change, size):
    """Windows far from the largest score of their tile are computed relative to their own."""
    case = replace(SMALL, space=(9, 12))
    inputs = case.make()
    change(inputs)
    ours, expected = both(inputs, case)
    for name, e in expected.items():
        count = case.terms * (ours["out"].numel() if name in ("bias", "weight") else 1)
        # a score of magnitude S is known to eps S, and so is its exponential, relatively
        scale = size * max(float(t.abs().max()) for t in expected.values())
        assert_close_to_oracle(ours[name], e, terms=count, scale=scale, name=name)


def test_masked_positions_and_windows_without_any():
    case = replace(SMALL, space=(9, 12))
    inputs = case.make()
    inputs["scores"][:, :, 5:] = float("-inf")
    inputs["scores"][:, 2, 2, 1, 3] = float("-inf")
    inputs["bias"][0, 0, 0, 1] = float("-inf")
    ours, expected = both(inputs, case)
    assert not ours["out"][:, :, 7:].any()
    assert not ours["scores"][:, :, 5:].any()
    # the reference has no gradient where it subtracts infinities: what it has is compared
    for name in ("out", "value", "weight"):
        assert ours[name].isfinite().all(), name
        count = case.terms * (ours["out"].numel() if name == "weight" else 1)
        assert_close_to_oracle(ours[name], expected[name], terms=count, scale=10.0, name=name)


@pytest.mark.parametrize("case", long(LAYERS, "small"))
def test_the_order_of_threads_changes_no_bit(case, card):
    """Twice in one order and once in the other: a barrier that is missing would show between the two."""
    inputs = heads_fastest(case.make(torch.bfloat16))
    runs = []
    for order in ("forwards", "forwards", "backwards"):
        card(order)
        runs.append(equality.run(HOST, inputs, case.window, "cuda_on_host"))
    for other in runs[1:]:
        for name, t in runs[0].items():
            assert torch.equal(t, other[name]), name


def test_packed_maps_get_one_gradient():
    made = SMALL.make()
    packed = torch.cat([made["value"].transpose(-1, -2), made["scores"]], -2).requires_grad_()
    geometry = {"stride": 1, "padding": "same", "dilation": 1, "factor": 1}
    out = ATTEND(*Inputs.packed(packed, made["bias"], made["weight"], geometry).arguments)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (together,) = torch.autograd.grad(out, packed, upstream)
    apart = {k: t.requires_grad_() for k, t in heads_fastest(made).items()}
    expected = attend(**apart, backend="cuda_on_host")
    assert torch.equal(out, expected)
    of_scores, of_value = torch.autograd.grad(expected, [apart["scores"], apart["value"]], upstream)
    assert torch.equal(together, torch.cat([of_value.transpose(-1, -2), of_scores], -2))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_torch_compile_sees_one_call():
    """And what the backend asks of its inputs can be traced."""

    def step(**inputs):
        return attend(**{**inputs, "value": inputs["value"] * 2}, backend="cuda_on_host").sin()

    inputs = {k: equality.leaf(t) for k, t in heads_fastest(SMALL.make()).items()}
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    grads = [torch.autograd.grad(f(**inputs).sum(), list(inputs.values())) for f in (compiled, step)]
    for a, e in zip(*grads, strict=True):
        torch.testing.assert_close(a, e)


def spread(t):
    """`t` in a memory where its second item begins 2^31 numbers behind the first; unused pages take none."""
    steps = (2**31, *t.stride()[1:])
    whole = torch.empty(2**31 + t[0].numel() * 2, dtype=t.dtype)
    return whole.as_strided(t.shape, steps).copy_(t)


@pytest.mark.long
def test_offsets_of_more_than_31_bits():
    """Maps whose items lie so far apart, read and written, give what dense ones do."""
    inputs = heads_fastest(replace(SMALL, batch=2).make(torch.bfloat16))
    window = Window.over(SMALL.space, SMALL.kernel, stride=1, padding="same", dilation=1)
    tables = (inputs["bias"], inputs["weight"])

    def all_maps(move):
        maps = [move(inputs["scores"].contiguous()), move(inputs["value"])]
        out = move(torch.zeros_like(maps[1]))
        backend.forward(*maps, *tables, out, None, window, (1, 1))
        grads = [move(torch.zeros_like(t)) for t in maps]
        sums = backend.backward(out, *maps, *tables, None, grads, window, (1, 1), True)
        return [out, *grads, *sums]

    for far, near in zip(all_maps(spread), all_maps(torch.clone), strict=True):
        assert torch.equal(far, near)
