"""The reference backend against the definition, and the op's contract."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qna.ops import learned_query_attention, use_backend
from qna.ops.learned_query.cases import BY_NAME, CASES, Case
from tests.ops.learned_query.oracle import attend_by_loops
from tests.ops.tolerance import assert_close_to_oracle

NAMES = ("scores", "value", "bias", "weight")
SMALL = [c for c in CASES if c.batch * c.taps * c.heads * torch.tensor(c.space).prod() < 6000]


@pytest.fixture(autouse=True)
def only_the_reference():
    with use_backend("reference"):
        yield


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda c: c.name)


def terms(case):
    return case.taps * case.head_dim * case.queries


@by_name(SMALL)
def test_equals_the_definition(case):
    inputs = case.make(torch.float64)
    expected = attend_by_loops(**inputs, **case.window)
    actual = learned_query_attention(**inputs, **case.window, backend="reference")
    assert actual.shape == expected.shape
    assert_close_to_oracle(actual, expected, terms=terms(case))


@by_name([c for c in SMALL if c.taps < 20][:6])
def test_gradients_equal_those_of_the_definition(case):
    inputs = {k: v.requires_grad_() for k, v in case.make(torch.float64).items()}
    out = learned_query_attention(**inputs, **case.window, backend="reference")
    upstream = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    actual = torch.autograd.grad(out, list(inputs.values()), upstream)
    expected = torch.autograd.grad(attend_by_loops(**inputs, **case.window), list(inputs.values()), upstream)
    for name, a, e in zip(NAMES, actual, expected, strict=True):
        assert_close_to_oracle(a, e, terms=terms(case) * out.numel(), name=name)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_the_definition_for_any_shape(data):
    axes = data.draw(st.integers(1, 3))
    small = st.integers(1, {1: 9, 2: 5, 3: 3}[axes])
    per_axis = lambda values: data.draw(st.tuples(*[values] * axes))  # noqa: E731
    case = Case(
        "any",
        per_axis(small),
        per_axis(st.integers(1, 4)),
        batch=data.draw(st.integers(0, 2)),
        queries=data.draw(st.integers(1, 4)),
        heads=data.draw(st.integers(1, 3)),
        head_dim=data.draw(st.integers(1, 3)),
        window={"stride": per_axis(st.integers(1, 3)), "dilation": per_axis(st.integers(1, 3))},
    )
    inputs = case.make(torch.float64, weighted=data.draw(st.booleans()))
    actual = learned_query_attention(**inputs, **case.window, backend="reference")
    assert_close_to_oracle(actual, attend_by_loops(**inputs, **case.window), terms=terms(case))


@by_name(CASES)
def test_fp32_is_close_to_fp64(case):
    inputs = case.make(torch.float32)
    expected = learned_query_attention(**{k: v.double() for k, v in inputs.items()}, **case.window)
    actual = learned_query_attention(**inputs, **case.window, backend="reference")
    assert_close_to_oracle(actual, expected, terms=terms(case), scale=float(inputs["value"].abs().max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@by_name([BY_NAME[name] for name in ("2d-3x3", "2d-one-pixel", "2d-two-pixels")])
def test_half_precision_only_rounds_its_result(case, dtype):
    inputs = case.make(dtype)
    in_fp32 = learned_query_attention(**{k: v.float() for k, v in inputs.items()}, **case.window)
    actual = learned_query_attention(**inputs, **case.window, backend="reference")
    assert actual.dtype == dtype
    assert torch.equal(actual, in_fp32.to(dtype))


def test_gradcheck_and_gradgradcheck():
    case = Case(
        "small", (3, 2), (2, 3), batch=1, heads=2, head_dim=2, window={"stride": (2, 1), "dilation": (1, 2)}
    )
    inputs = [t.requires_grad_() for t in case.make(torch.float64).values()]

    def op(*tensors):
        return learned_query_attention(*tensors, **case.window, backend="reference")

    assert torch.autograd.gradcheck(op, inputs)
    assert torch.autograd.gradgradcheck(op, inputs)


@pytest.mark.parametrize("factor", [1.0, 60.0])
def test_fp16_scores_of_sixty(factor):
    case = BY_NAME["2d-3x3"]
    inputs = case.make(torch.float16)
    inputs["scores"] = torch.where(inputs["scores"] > 0, factor, -factor).half()
    actual = learned_query_attention(**inputs)
    expected = learned_query_attention(**{k: v.double() for k, v in inputs.items()})
    assert (actual.double() - expected).abs().max() <= 2.0**-10 * expected.abs().max()


def test_large_scores_and_biases():
    inputs = BY_NAME["2d-3x3"].make(torch.float32)
    for name in ("scores", "bias"):
        large = {**inputs, name: inputs[name] * 1e4}
        expected = learned_query_attention(**{k: v.double() for k, v in large.items()})
        actual = learned_query_attention(**large, backend="reference")
        # a score of 1e4 is known to eps * 1e4, and so is its exponential, relatively
        scale = float((large[name].abs().max() + 1) * inputs["value"].abs().max())
        assert_close_to_oracle(actual, expected, terms=terms(BY_NAME["2d-3x3"]), scale=scale)


@pytest.mark.parametrize("size", [1e3, 1e15, 1e17, 1.7e308])
def test_what_the_sum_of_score_and_bias_rounds_off_is_all_that_is_lost(size):
    """The bound of its promise: the softmax of the sums as numbers of fp64, however large they are."""
    g = np.random.default_rng(0)
    scores, bias = np.array([-1, 1, 1, 0.5, 1]) * size, g.normal(size=5)
    value = g.normal(size=5)
    given = [torch.from_numpy(x) for x in (scores.reshape(1, 5, 1, 1), value.reshape(1, 5, 1, 1))]
    out = learned_query_attention(*given, torch.from_numpy(bias).view(5, 1, 1), padding=0)
    logits = scores + bias  # rounded, as in the reference
    with np.errstate(over="ignore"):
        share = np.exp(logits - logits.max())
    expected = (share / share.sum() * value).sum()
    assert out.item() == pytest.approx(expected, abs=8 * np.finfo(float).eps)
    if size > 1e16:  # the biases are below half a step of the largest scores
        assert expected == pytest.approx(value[[1, 2, 4]].mean())


def test_one_window_far_below_its_neighbours_does_not_vanish():
    inputs = BY_NAME["2d-3x3"].make(torch.float32)
    inputs["scores"][:, :, :5] -= 1000.0
    expected = learned_query_attention(**{k: v.double() for k, v in inputs.items()})
    actual = learned_query_attention(**inputs, backend="reference")
    assert expected[:, :, 0].abs().amin() > 0
    assert_close_to_oracle(
        actual, expected, terms=terms(BY_NAME["2d-3x3"]), scale=1000 * float(inputs["value"].abs().max())
    )


@pytest.mark.parametrize("constant", [3.0, 1e4, -1e4])
@pytest.mark.parametrize("name", ["scores", "bias"])
def test_a_constant_per_query_and_head_changes_nothing(name, constant):
    inputs = BY_NAME["2d-3x3"].make(torch.float32)
    # scores of 1/64 steps, so that the sum with the constant is exact in fp32
    inputs[name] = (inputs[name] * 64).round() / 64
    per_query_and_head = constant * torch.tensor([[1.0, -1.0, 0.5], [2.0, 1.0, -0.25]])
    expected = learned_query_attention(**{k: v.double() for k, v in inputs.items()})
    actual = learned_query_attention(
        **{**inputs, name: inputs[name] + per_query_and_head}, backend="reference"
    )
    scale = 2 * (abs(constant) + 4) * float(inputs["value"].abs().max())
    assert_close_to_oracle(actual, expected, terms=terms(BY_NAME["2d-3x3"]), scale=scale)


def test_a_score_of_minus_infinity_masks_its_position():
    inputs = BY_NAME["2d-3x3"].make(torch.float64)
    masked = inputs["scores"].clone()
    masked[:, :, 9:] = float("-inf")
    inputs["scores"] = masked.requires_grad_()
    out = learned_query_attention(**inputs)
    cut = learned_query_attention(
        inputs["scores"][:, :, :9], inputs["value"][:, :, :9], inputs["bias"], inputs["weight"]
    )
    torch.testing.assert_close(out[:, :, :9], cut)
    assert (out[:, :, 11:] == 0).all()
    out.sum().backward()
    assert masked.grad.isfinite().all()


def test_windows_outside_the_map_give_zero():
    case = BY_NAME["2d-windows-outside"]
    inputs = {k: v.requires_grad_() for k, v in case.make(torch.float64).items()}
    out = learned_query_attention(**inputs, **case.window)
    assert (out[:, 0] == 0).all()
    assert out.abs().sum() > 0
    out.sum().backward()
    assert all(t.grad.isfinite().all() for t in inputs.values())


def test_uniform_attention_is_an_average_pool_that_leaves_padding_out():
    value = torch.randn(2, 7, 15, 3, 5, dtype=torch.float64)
    zeros = torch.zeros(2, 7, 15, 1, 3, dtype=torch.float64), torch.zeros(3, 3, 1, 3, dtype=torch.float64)
    actual = learned_query_attention(zeros[0], value, zeros[1])
    pool = torch.nn.functional.avg_pool2d(
        value.flatten(-2).movedim(-1, 1), 3, stride=1, padding=1, count_include_pad=False
    )
    torch.testing.assert_close(actual.flatten(-2), pool.movedim(1, -1))


def test_equals_the_two_convolutions_of_the_paper():
    """Depth-wise convolutions of e^scores and of e^scores * value, divided and summed over the queries."""
    case = Case("2d", (9, 8), (5, 5), heads=4, head_dim=3)
    inputs = case.make(torch.float64)
    scores, value, bias, weight = inputs.values()
    e = scores.exp()
    spread = (e.unsqueeze(-1) * value.unsqueeze(-3)).flatten(-3).movedim(-1, 1)
    static = (
        (bias.exp() * weight).repeat_interleave(case.head_dim, -1).flatten(-2).movedim(-1, 0).unsqueeze(1)
    )
    above = torch.nn.functional.conv2d(spread, static, padding=2, groups=spread.shape[1])
    flat = bias.exp().flatten(-2).movedim(-1, 0).unsqueeze(1)
    below = torch.nn.functional.conv2d(e.flatten(-2).movedim(-1, 1), flat, padding=2, groups=flat.shape[0])
    shape = (2, 2, 4, 3, 9, 8)
    expected = (above.view(shape) / below.view(2, 2, 4, 1, 9, 8)).sum(1)
    actual = learned_query_attention(**inputs)
    torch.testing.assert_close(actual, expected.permute(0, 3, 4, 1, 2))


def test_stride_subsamples_and_a_huge_bias_shifts():
    inputs = BY_NAME["2d-3x3"].make(torch.float64)
    dense = learned_query_attention(**inputs)
    torch.testing.assert_close(learned_query_attention(**inputs, stride=2), dense[:, ::2, ::2])
    bias = torch.zeros_like(inputs["bias"])
    bias[0, 2] = 1e6
    weight = torch.ones_like(bias) / 2
    shifted = learned_query_attention(inputs["scores"], inputs["value"], bias, weight)
    torch.testing.assert_close(shifted[:, 1:, :-1], inputs["value"][:, :-1, 1:])


@by_name(CASES)
def test_batch_invariance_and_strided_inputs(case):
    inputs = case.make(torch.float32)
    whole = learned_query_attention(**inputs, **case.window)
    one = learned_query_attention(
        inputs["scores"][1:], inputs["value"][1:], inputs["bias"], inputs["weight"], **case.window
    )
    assert torch.equal(whole[1:], one)
    strided = {k: t.transpose(-1, -2).contiguous().transpose(-1, -2) for k, t in inputs.items()}
    assert torch.equal(learned_query_attention(**strided, **case.window), whole)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(learned_query_attention, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for case in (BY_NAME["2d-3x3"], Case("other", (5, 6), (3, 3))):
        inputs = {k: v.requires_grad_() for k, v in case.make().items()}
        with_backend = {"backend": "reference"}
        out = compiled(**inputs, **with_backend)
        expected = learned_query_attention(**inputs, **with_backend)
        torch.testing.assert_close(out, expected)
        for a, e in zip(
            torch.autograd.grad(out.sum(), list(inputs.values())),
            torch.autograd.grad(expected.sum(), list(inputs.values())),
            strict=True,
        ):
            torch.testing.assert_close(a, e)


def test_exports_as_plain_aten_with_a_dynamic_batch():
    class Op(torch.nn.Module):
        def forward(self, scores, value, bias, weight):
            return learned_query_attention(scores, value, bias, weight, stride=2, backend="reference")

    inputs = tuple(BY_NAME["2d-3x3"].make().values())
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(Op(), inputs, dynamic_shapes=({0: batch}, {0: batch}, None, None))
    targets = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    assert targets
    assert not [t for t in targets if not t.startswith("aten.")]
    longer = (inputs[0].repeat(2, 1, 1, 1, 1), inputs[1].repeat(2, 1, 1, 1, 1), *inputs[2:])
    torch.testing.assert_close(program.module()(*longer), Op()(*longer))
