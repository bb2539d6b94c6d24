"""The CPU kernels: every layout, dtype and instruction set against the reference, which is held to loops."""

import math
from dataclasses import replace

import pytest
import torch

from qna.ops import neighborhood_attention
from qna.ops.neighborhood import ROW, cpu
from qna.ops.neighborhood.cases import BY_NAME, CASES, NeighborhoodCase
from qna.ops.neighborhood.geometry import window_axes
from tests.ops.equality import assert_equals_reference, leaf
from tests.ops.neighborhood import drawn
from tests.ops.neighborhood.equality import D, as_, assert_equal, results

pytestmark = pytest.mark.skipif(bool(cpu.missing()), reason="; ".join(cpu.missing()) or "there")

SETS = cpu._native.instruction_sets() if not cpu.missing() else []
CHUNK = 100


@pytest.fixture(params=[*SETS[:1], *(pytest.param(s, marks=pytest.mark.long) for s in SETS[1:])])
def instruction_set(request):
    before = cpu._native.in_use()
    cpu._native.use(request.param)
    yield request.param
    cpu._native.use(before)


def axes_of(case):
    return window_axes(case.name, case.space, **case.window)


@pytest.mark.parametrize("dtype", [torch.float32, D], ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_the_reference(case, dtype, instruction_set):
    # what fp32 can hold, so that both get the same numbers
    tensors = {name: as_(t, D) for name, t in case.make().items()}
    assert_equal(case, tensors, dtype, "cpu")


# more taps than are taken at once, lines longer than what is taken together, groups that do not fit
WIDE = (
    NeighborhoodCase("1d-parts", (640,), (601,), heads=1, head_dim=8, biased=True, extra=3),
    NeighborhoodCase("2d-parts", (9, 70), (9, 66), batch=1, heads=1, head_dim=8, biased=True, masked=True),
    NeighborhoodCase("2d-long-lines", (4, 300), (3, 13), batch=1, heads=1, head_dim=33, biased=True),
    NeighborhoodCase("2d-causal-lines", (3, 90), (2, 40), heads=1, options={"is_causal": (False, True)}),
    NeighborhoodCase("2d-blocks", (4, 96), (2, 12), batch=1, heads=1, options={"stride": (1, 12)}),
)


# narrow windows, whose queries are taken a lane each: at the border and between, of lines that end within a
# vector, strides that spread windows further than one, and what is left to the others
LANES = (
    NeighborhoodCase("2d-lanes", (9, 56), (7, 7), batch=1, heads=2, head_dim=32, extra=3),
    NeighborhoodCase("2d-lanes-biased", (5, 61), (3, 9), batch=1, heads=1, head_dim=18, biased=True),
    NeighborhoodCase("2d-lanes-strided", (5, 70), (3, 11), batch=1, heads=1, options={"stride": (1, 11)}),
    NeighborhoodCase("2d-lanes-strided-a-little", (5, 70), (2, 8), heads=1, options={"stride": (2, 3)}),
    NeighborhoodCase("2d-lanes-dilated", (8, 75), (3, 5), heads=1, options={"dilation": (2, 3)}),
    NeighborhoodCase("2d-lanes-masked-border", (4, 40), (3, 6), biased=True, options={"border": "mask"}),
    NeighborhoodCase("2d-lanes-zero-border", (4, 40), (3, 6), biased=True, options={"border": "zero"}),
    NeighborhoodCase("2d-lanes-causal", (4, 40), (3, 5), options={"is_causal": (False, True)}),
    NeighborhoodCase("3d-lanes", (3, 4, 35), (3, 3, 3), heads=1, head_dim=20, value_dim=70),
)


@pytest.mark.parametrize("dtype", [torch.float32, D], ids=str)
@pytest.mark.parametrize("case", LANES, ids=lambda case: case.name)
def test_narrow_windows_on_long_lines(case, dtype, instruction_set):
    tensors = {name: as_(t, D) for name, t in case.make().items()}
    assert_equal(case, tensors, dtype, "cpu")


@pytest.mark.parametrize("case", LANES, ids=lambda case: case.name)
def test_a_nan_reaches_those_who_attend_it_alone(case, instruction_set):
    tensors = case.make()
    for name in ("k", "v"):
        spoiled = {**tensors, name: tensors[name].clone()}
        spoiled[name][0, ..., 20, 0, 0] = math.nan
        out = neighborhood_attention(**spoiled, **case.window, backend="cpu")
        truth = neighborhood_attention(**spoiled, **case.window, backend="reference")
        assert torch.equal(out.isfinite(), truth.isfinite()), name


@pytest.mark.parametrize("case", WIDE, ids=lambda case: case.name)
def test_windows_of_many_taps_and_long_lines(case, instruction_set):
    tensors = {name: as_(t, D) for name, t in case.make().items()}
    assert_equal(case, tensors, torch.float32, "cpu")


@pytest.mark.parametrize("chunk", [0, 1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 30))])
def test_random_calls_equal_the_reference(chunk, instruction_set):
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        case = drawn.call(seed)
        tensors = {name: as_(t, D) for name, t in case.make(seed=seed).items()}
        assert_equal(case, tensors, torch.float32 if seed % 3 else D, "cpu", of_lse=bool(seed % 2))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_like_the_reference(case, dtype, instruction_set):
    assert_equals_reference(ROW, case, case.make(dtype), "cpu")


LAID_OUT = {
    "parts of one row": lambda t: torch.stack([t, t], -2)[..., 0, :],
    "heads fastest": lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2),
    "heads first": lambda t: t.movedim(-2, 1).contiguous().movedim(1, -2),
    "every second number": lambda t: torch.stack([t, t], -1)[..., 0],
    "expanded": lambda t: t[:1, :1].expand(t.shape),
}


@pytest.mark.parametrize("layout", LAID_OUT)
def test_maps_of_any_strides(layout):
    case = BY_NAME["2d-all-at-once"]
    made = case.make()
    tensors = {name: LAID_OUT[layout](t) if name in "qkv" else t for name, t in made.items()}
    dense = {name: t.contiguous() for name, t in tensors.items()}
    for a, e in zip(*(results(t, case.window, "cpu").values() for t in (tensors, dense)), strict=True):
        assert torch.equal(a, e)


def test_an_upstream_gradient_of_any_strides():
    tensors = {name: leaf(t) for name, t in BY_NAME["2d-even"].make().items()}
    out = neighborhood_attention(**tensors, **BY_NAME["2d-even"].window, backend="cpu")
    leaves = list(tensors.values())
    for grad in (out.new_ones(()).expand(out.shape), torch.randn(out.shape[::-1]).permute(4, 3, 2, 1, 0)):
        found = (torch.autograd.grad(out, leaves, g, retain_graph=True) for g in (grad, grad.contiguous()))
        assert all(map(torch.equal, *found))


@pytest.mark.parametrize("case", [*CASES, *LANES], ids=lambda case: case.name)
def test_threads_change_no_bit(case):
    tensors, before = case.make(), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(results(tensors, case.window, "cpu"))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(other[name], t) for name, t in found[0].items())


def test_an_item_of_a_batch_does_not_know_of_the_others():
    case = replace(BY_NAME["2d-3x3"], batch=3)
    tensors = case.make()
    together = results(tensors, case.window, "cpu")
    for i in range(3):
        alone = {name: t if name == "bias" else t[i : i + 1] for name, t in tensors.items()}
        out = neighborhood_attention(**alone, **case.window, backend="cpu")
        assert torch.equal(out, together["out"][i : i + 1])


@pytest.mark.parametrize("name", ["k", "v"])
def test_what_is_not_attended_may_be_nan(name):
    case = replace(BY_NAME["2d-3x3"], extra=0)
    tensors = case.make()
    hidden = ~tensors["key_mask"][..., None, None]
    spoiled = {**tensors, name: tensors[name].masked_fill(hidden, math.nan)}
    for a, e in zip(*(results(t, case.window, "cpu").values() for t in (spoiled, tensors)), strict=True):
        assert torch.equal(a, e)


def test_a_future_key_may_be_nan():
    case = replace(BY_NAME["1d-causal-strided"], biased=False)
    tensors = case.make()
    clean = neighborhood_attention(**tensors, **case.window, backend="cpu")
    for name in ("k", "v"):
        spoiled = {**tensors, name: tensors[name].clone()}
        spoiled[name][:, 5:] = math.nan
        out = neighborhood_attention(**spoiled, **case.window, backend="cpu")
        assert torch.equal(out[:, :5], clean[:, :5])


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_scores_of_any_size(size):
    """Beside one another: the largest alone, or all of them equally."""
    case = BY_NAME["1d-long-window"]
    tensors = {name: as_(t, D) for name, t in case.make().items()}
    tensors["q"] = tensors["q"] * size
    out = neighborhood_attention(**tensors, **case.window, backend="cpu")
    expected = neighborhood_attention(**tensors, **case.window, backend="reference")
    # a score of magnitude s carries an error of eps s, and so does its exponential, relatively
    torch.testing.assert_close(out, expected, rtol=0, atol=2.0**-52 * 64 * size * 8)


def test_nan_and_infinity_are_not_hidden():
    tensors = BY_NAME["2d-even"].make()
    for name in "qkv":
        for value in (math.nan, math.inf):
            spoiled = {**tensors, name: tensors[name].clone()}
            spoiled[name][0, 0, 0, 0, 0] = value
            out = neighborhood_attention(**spoiled, **BY_NAME["2d-even"].window, backend="cpu")
            # a key at infinity may have a score of minus infinity, and is then masked
            truth = neighborhood_attention(**spoiled, **BY_NAME["2d-even"].window, backend="reference")
            assert torch.equal(out.isfinite(), truth.isfinite()), (name, value)
            assert out[1].isfinite().all()


def test_frozen_inputs_get_no_gradient():
    tensors = BY_NAME["2d-3x3"].make()
    tensors["v"].requires_grad_()
    neighborhood_attention(**tensors, **BY_NAME["2d-3x3"].window, backend="cpu").sum().backward()
    assert tensors["v"].grad is not None
    assert tensors["q"].grad is None


def test_a_gradient_of_the_log_sum_exp_alone():
    case = BY_NAME["2d-3x3"]
    found = []
    for backend in ("cpu", "reference"):
        leaves = {name: leaf(as_(t, D)) for name, t in case.make().items()}
        _, lse = neighborhood_attention(**leaves, **case.window, return_lse=True, backend=backend)
        lse.sin().sum().backward()
        found.append({name: t.grad for name, t in leaves.items() if t.grad is not None})
    assert (found[0]["v"] == 0).all()
    found[1].setdefault("v", torch.zeros_like(found[0]["v"]))
    found[1].setdefault("extra_values", torch.zeros_like(found[0]["extra_values"]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_no_kernel_is_asked_for_an_empty_batch():
    tensors = {name: t if name == "bias" else t[:0] for name, t in BY_NAME["2d-3x3"].make().items()}
    found = results(tensors, BY_NAME["2d-3x3"].window, "cpu")
    assert found["out"].shape == (0, 7, 9, 3, 5)
    assert (found["bias"] == 0).all()


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic):
    torch._dynamo.reset()
    case = BY_NAME["2d-all-at-once"]

    def step(tensors):
        return neighborhood_attention(**tensors, **case.window, backend="cpu").sin()

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for space in ((14, 13), (15, 16)):
        tensors = {name: leaf(t) for name, t in replace(case, space=space).make().items()}
        leaves = [t for t in tensors.values() if t.requires_grad]
        out, expected = compiled(tensors), step(tensors)
        torch.testing.assert_close(out, expected)
        grads = (torch.autograd.grad(y.sum(), leaves) for y in (out, expected))
        torch.testing.assert_close(*grads)


def test_opcheck_with_its_log_sum_exp():
    case = BY_NAME["2d-3x3"]
    axes = cpu.OP.encode(0.3, axes_of(case))
    tensors = [leaf(t) for t in case.make().values()]
    torch.library.opcheck(torch.ops.qna.neighborhood_cpu.default, (*tensors, *axes))
    plain = BY_NAME["2d-plain"]
    maps = [leaf(t) for t in plain.make().values()]
    axes = cpu.OP.encode(0.3, axes_of(plain))
    torch.library.opcheck(torch.ops.qna.neighborhood_cpu.default, (*maps, None, None, None, None, *axes))
