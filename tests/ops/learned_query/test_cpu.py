"""The CPU kernels against the fp64 reference, on every instruction set that this machine has."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qna._core.backends import select
from qna.ops import learned_query_attention
from qna.ops._shared.window import Window
from qna.ops.learned_query import ROW, cpu
from qna.ops.learned_query.cases import BY_NAME, CASES, Case
from qna.ops.learned_query.inputs import Inputs
from tests.ops.tolerance import assert_close_to_oracle

NAMES = ("scores", "value", "bias", "weight")
LAYOUTS = ("contiguous", "heads fastest", "packed", "strided")

pytestmark = pytest.mark.skipif(bool(cpu.missing()), reason="; ".join(cpu.missing()) or "there")

# sizes that exercise the lanes: every head count class of every vector width, odd depths, borders, tiles
KERNEL_CASES = (
    *CASES,
    Case("heads-1", (9, 10), (3, 3), heads=1, head_dim=20),
    Case("heads-2-d7", (9, 10), (3, 3), heads=2, head_dim=7),
    Case("heads-4-q3", (9, 10), (3, 3), queries=3, heads=4, head_dim=12),
    Case("heads-5", (9, 10), (3, 3), heads=5, head_dim=3),
    Case("heads-8-q1", (9, 10), (5, 5), queries=1, heads=8, head_dim=6),
    Case("heads-8-q3", (9, 10), (3, 3), queries=3, heads=8, head_dim=8),
    Case("heads-16-d8", (9, 10), (3, 3), heads=16, head_dim=8),
    Case("heads-24-d16", (5, 6), (3, 3), heads=24, head_dim=16),
    Case("heads-32", (5, 6), (3, 3), heads=32, head_dim=8),
    Case("heads-33-q4", (5, 6), (3, 3), queries=4, heads=33, head_dim=3),
    Case("five-queries", (5, 6), (3, 3), queries=5, heads=12, head_dim=3),
    Case("two-tiles", (41, 70), (3, 3), batch=1, heads=8, head_dim=8),
    Case("two-tiles-strided", (40, 150), (3, 5), batch=1, heads=4, window={"stride": (1, 2)}),
    Case("wide-kernel", (2, 70), (1, 81), batch=1, heads=8, head_dim=8),
    Case("wide-dilation", (15, 15), (3, 3), heads=8, head_dim=8, window={"dilation": 9}),
    Case("1d-long", (700,), (11,), batch=1, heads=8, head_dim=8),
    Case("runs-of-7-and-3", (9, 13), (3, 10), heads=8, head_dim=8),
    Case("runs-of-3", (7, 11), (2, 9), heads=8, head_dim=14, batch=1),
    Case("runs-of-5-and-7-padded-heads", (7, 13), (3, 12), heads=5, head_dim=6, batch=1),
    Case("upsampled-two-tiles", (41, 70), (3, 3), batch=1, queries=4, heads=8, window={"factor": 2}),
    Case("upsampled-head-blocks", (5, 6), (5, 5), queries=4, heads=24, window={"factor": (4, 1)}),
    Case("upsampled-strided", (9, 40), (4, 4), queries=6, heads=5, window={"factor": (1, 3), "stride": 2}),
    Case("runs-of-16-heads", (6, 9), (3, 7), heads=16, head_dim=8, batch=1),
)


def terms(case):
    return case.taps * case.head_dim * case.queries


def lay_out(inputs, layout):
    """The same numbers with the value map (and the scores) laid out as callers may."""
    scores, value = inputs["scores"], inputs["value"]
    if layout == "heads fastest":
        value = value.transpose(-1, -2).contiguous().transpose(-1, -2)
    elif layout == "packed":  # one row per position: channels with the heads fastest, then scores
        heads, depth = value.shape[-2:]
        rows = torch.cat([value.transpose(-1, -2).flatten(-2), scores.flatten(-2)], -1)
        value = rows[..., : heads * depth].unflatten(-1, (depth, heads)).transpose(-1, -2)
        scores = rows[..., heads * depth :].unflatten(-1, scores.shape[-2:])
    elif layout == "strided":
        value = torch.stack([value, value], -1)[..., 0]
        scores = torch.stack([scores, scores], -1)[..., 0]
    return {**inputs, "scores": scores, "value": value}


def run(inputs, window, backend, upstream=None):
    """Output and gradients by name."""
    leaves = {k: v.detach().requires_grad_() for k, v in inputs.items() if v is not None}
    # a view keeps the layout of the numbers, a leaf does not have to
    out = learned_query_attention(**leaves, **window, backend=backend)
    if upstream is None:
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grads = torch.autograd.grad(out, list(leaves.values()), upstream.to(out.dtype))
    return {"out": out.detach(), **dict(zip(leaves, grads, strict=True))}, upstream


def check(inputs, window, case, scale=1.0):
    actual, upstream = run(inputs, window, "cpu")
    wide = {k: v if v is None else v.double() for k, v in inputs.items()}
    expected, _ = run(wide, window, "reference", upstream.to(inputs["value"].dtype).double())
    size = float(inputs["value"].abs().max() * upstream.abs().max()) if upstream.numel() else 1.0
    for name, e in expected.items():
        # a sum over the map is one of bias's and weight's gradients
        n = terms(case) * (upstream.numel() if name in ("bias", "weight") else 1)
        assert_close_to_oracle(actual[name], e, terms=n, scale=scale * size, name=name)


SETS = cpu._native.instruction_sets() if cpu._native else []


@pytest.fixture(params=[*SETS[:1], *(pytest.param(s, marks=pytest.mark.long) for s in SETS[1:])])
def instruction_set(request):
    before = cpu.instruction_set()
    cpu._native.use(request.param)
    yield request.param
    cpu._native.use(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", KERNEL_CASES, ids=lambda c: c.name)
def test_equals_the_reference(case, dtype, instruction_set):
    inputs = case.make(dtype)
    for layout in LAYOUTS if torch.tensor(case.space).prod() < 300 else ("packed",):
        check(lay_out(inputs, layout), case.window, case)
    check({**inputs, "weight": None}, case.window, case)


@pytest.mark.parametrize("size", [*itertools.product((1, 2, 7, 15), repeat=2)], ids=str)
def test_every_small_map(size):
    for kernel, stride in (((3, 3), 1), ((4, 2), 2), ((9, 9), 1), ((5, 1), 3)):
        case = Case("small", size, kernel, heads=8, head_dim=8, window={"stride": stride})
        check(lay_out(case.make(), "packed"), case.window, case)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_the_reference_for_any_shape(data):
    axes = data.draw(st.integers(1, 3))
    per_axis = lambda values: data.draw(st.tuples(*[values] * axes))  # noqa: E731
    case = Case(
        "any",
        per_axis(st.integers(1, {1: 80, 2: 12, 3: 5}[axes])),
        per_axis(st.integers(1, {1: 15, 2: 6, 3: 3}[axes])),
        batch=data.draw(st.integers(0, 2)),
        queries=data.draw(st.integers(1, 5)),
        heads=data.draw(st.sampled_from((1, 2, 3, 4, 6, 8, 12, 16, 17, 32))),
        head_dim=data.draw(st.integers(1, 9)),
        window={"stride": per_axis(st.integers(1, 3)), "dilation": per_axis(st.integers(1, 3))},
    )
    inputs = case.make(
        data.draw(st.sampled_from((torch.float32, torch.float64))), weighted=data.draw(st.booleans())
    )
    check(lay_out(inputs, data.draw(st.sampled_from(LAYOUTS))), case.window, case)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "name", ["2d-two-queries-d8", "2d-six-heads-d16", "2d-stride-3-rectangular", "2d-upsampled"]
)
def test_half_precision_is_at_most_twice_as_wrong_as_the_reference(name, dtype, layout, instruction_set):
    case = BY_NAME[name]
    inputs = lay_out(case.make(dtype), layout)
    exact, upstream = run({k: v.double() for k, v in inputs.items()}, case.window, "reference")
    actual, _ = run(inputs, case.window, "cpu", upstream)
    reference, _ = run(inputs, case.window, "reference", upstream)
    for key, e in exact.items():
        error, allowed = ((r[key].double() - e).abs().max() for r in (actual, reference))
        assert actual[key].dtype == dtype
        assert error <= 2 * allowed + 1e-6, key


@pytest.mark.parametrize("name", ["scores", "bias"])
@pytest.mark.parametrize("factor", [30.0, 300.0, 1e4])
def test_large_scores_and_biases(name, factor, instruction_set):
    for name_of_case in ("2d-two-queries-d8", "2d-six-heads-d16", "2d-dilated", "2d-upsampled"):
        case = BY_NAME[name_of_case]
        inputs = case.make()
        check({**inputs, name: inputs[name] * factor}, case.window, case)


def test_large_scores_and_biases_together(instruction_set):
    case = Case("both", (41, 70), (3, 3), batch=1, heads=8, head_dim=8)
    inputs = case.make()
    check({**inputs, "scores": inputs["scores"] * 100, "bias": inputs["bias"] * 100}, case.window, case)


@pytest.mark.parametrize("shift", [3.0, 1e4, -1e4])
@pytest.mark.parametrize("name", ["scores", "bias"])
def test_a_constant_changes_nothing(name, shift, instruction_set):
    case = BY_NAME["2d-two-queries-d8"]
    inputs = case.make()
    check({**inputs, name: inputs[name] + shift}, case.window, case)


@pytest.mark.parametrize("depth", [100.0, 1000.0, 1e4])
def test_windows_far_below_their_neighbours(depth, instruction_set):
    case = Case("low", (30, 70), (5, 5), batch=1, heads=8, head_dim=8)
    inputs = case.make()
    inputs["scores"][:, 8:17, 20:50] -= depth
    check(lay_out(inputs, "packed"), case.window, case)


@pytest.mark.parametrize("lowest", [float("-inf"), -1e9])
def test_masked_scores(lowest, instruction_set):
    case = Case("mask", (12, 30), (3, 3), heads=8, head_dim=8)
    inputs = case.make()
    masked = inputs["scores"].clone()
    masked[:, :, 9:] = lowest
    masked[:, 0, 0] = lowest
    check({**inputs, "scores": masked}, {}, case)
    if lowest == float("-inf"):
        actual, upstream = run({**inputs, "scores": masked}, {}, "cpu")
        assert (actual["out"][:, :, 11:] == 0).all()
        assert (actual["scores"][:, :, 9:] == 0).all()
        everything = torch.full_like(masked, float("-inf"))
        gone, _ = run({**inputs, "scores": everything}, {}, "cpu", upstream)
        assert all((t == 0).all() for t in gone.values())


@pytest.mark.parametrize("line", [0, 9, 40])
@pytest.mark.parametrize("score", [60.0, 1e4, 1e9])
def test_one_score_far_above_the_rest(score, line, instruction_set):
    case = Case("above", (41, 70), (3, 3), batch=1, heads=8, head_dim=8)
    inputs = case.make()
    inputs["scores"][:, line, 30] = score
    check(lay_out(inputs, "packed"), case.window, case)


UNITS = [(torch.float32, 30), (torch.float32, 100), (torch.float32, 126), (torch.bfloat16, 126)]
UNITS += [(torch.float64, 30), (torch.float64, 45), (torch.float64, 1022)]


@pytest.mark.parametrize("where", ["scores", "corner", "bias", "both"])
@pytest.mark.parametrize(("dtype", "exponent"), UNITS, ids=str)
def test_scores_and_biases_up_to_the_largest_number(dtype, exponent, where, instruction_set):
    # whole multiples of a unit far above the range of exponentials: between them it is all or nothing,
    # whatever the unit, and biases of ordinary size decide among equals, also where the sum overflows
    case = Case("huge", (20, 70), (3, 3), batch=3, heads=8, head_dim=8)
    inputs, g = case.make(dtype), torch.Generator().manual_seed(2)
    multiples = {k: torch.randint(-3, 4, inputs[k].shape, generator=g) for k in ("scores", "bias")}
    if where == "corner":  # of the first item alone
        multiples["scores"][:, 3:, :-3] = 0
        multiples["scores"][1:] = 0
    for name in multiples:  # so that the oracle's sum with a multiple of 2^12 keeps every bit
        inputs[name] = (inputs[name] * 64).round() / 64
    used = {"corner": ("scores",), "both": ("scores", "bias")}.get(where, (where,))

    def at(unit, to):
        moved = {k: multiples[k].double() * unit for k in used}
        if where != "bias":
            moved["scores"][:, 9:, 40:] = float("-inf")
        if where == "corner":
            moved["scores"] += inputs["scores"].double() * (multiples["scores"] == 0)
        return {k: moved.get(k, v).to(to) for k, v in inputs.items()}

    expected, upstream = run(at(2.0**12, torch.float64), {}, "reference")
    actual, _ = run(at(2.0**exponent, dtype), {}, "cpu", upstream)
    scale = float(inputs["value"].abs().max() * upstream.abs().max())
    for name, e in expected.items():
        n = terms(case) * (upstream.numel() if name in ("bias", "weight") else 1)
        if dtype == torch.bfloat16:  # upstream and results are rounded
            assert (actual[name].double() - e).abs().max() <= 2**-7 * max(float(e.abs().max()), 1), name
        else:
            assert_close_to_oracle(actual[name], e, terms=n, scale=scale, name=name)


@pytest.mark.parametrize(("dtype", "shift"), [(torch.float32, 2.0**22), (torch.float64, 2.0**45)], ids=str)
@pytest.mark.parametrize("name", ["scores", "bias"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_huge_constant_changes_nothing(dtype, shift, name, sign, instruction_set):
    case = Case("shift", (12, 70), (3, 3), heads=8, head_dim=8)
    inputs = case.make(dtype)
    inputs[name] = inputs[name].round()  # of which the sum keeps every bit
    expected, upstream = run({k: v.double() for k, v in inputs.items()}, {}, "reference")
    actual, _ = run({**inputs, name: inputs[name] + sign * shift}, {}, "cpu", upstream)
    scale = float(inputs["value"].abs().max() * upstream.abs().max())
    for key, e in expected.items():
        n = terms(case) * (upstream.numel() if key in ("bias", "weight") else 1)
        assert_close_to_oracle(actual[key], e, terms=n, scale=scale, name=key)


def test_first_lines_that_are_masked(instruction_set):
    case = Case("above", (41, 70), (3, 3), batch=1, heads=8, head_dim=8)
    inputs = case.make()
    inputs["scores"][:, :5] = float("-inf")
    check(lay_out(inputs, "packed"), case.window, case)


def test_the_lowest_finite_score_masks_too(instruction_set):
    case = Case("mask", (12, 30), (3, 3), heads=8, head_dim=8)
    results = []
    for lowest in (torch.finfo(torch.float32).min, float("-inf")):
        inputs = case.make()
        inputs["scores"][:, :, 9:] = lowest
        results.append(run(inputs, {}, "cpu")[0])
    assert torch.equal(results[0]["out"][:, :, :9], results[1]["out"][:, :, :9])
    assert all(t.isfinite().all() for t in results[0].values())


def test_a_large_weight_and_a_large_value():
    case = BY_NAME["2d-two-queries-d8"]
    inputs = case.make()
    actual, _ = run({**inputs, "weight": inputs["weight"] * 1e20}, {}, "cpu")
    expected, _ = run(inputs, {}, "cpu")
    torch.testing.assert_close(actual["out"] * 1e-20, expected["out"])


def test_windows_outside_the_map_give_zero_and_no_gradient(instruction_set):
    case = BY_NAME["2d-windows-outside"]
    for layout in LAYOUTS:
        check(lay_out(case.make(), layout), case.window, case)


FAR = (
    Case("1d", (5,), (3,), batch=1, queries=1, heads=1, head_dim=1, window={"padding": 1500}),
    Case("1d-strided-dilated", (9,), (4,), window={"padding": 5000, "stride": 3, "dilation": 2}),
    Case("1d-runs-in-parts", (9,), (10,), heads=8, head_dim=8, window={"padding": 2100}),
    Case("right-and-left", (3, 5), (3, 3), heads=8, head_dim=8, window={"padding": (1, 1500)}),
    Case("above-and-below", (5, 3), (3, 3), heads=8, head_dim=8, window={"padding": (1500, 1)}),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", FAR, ids=lambda c: c.name)
def test_tiles_of_windows_outside_the_map_give_zero_and_no_gradient(case, dtype, instruction_set):
    inputs = case.make(dtype)
    sums = learned_query_attention(
        torch.zeros_like(inputs["scores"]),
        torch.ones_like(inputs["value"]),
        torch.zeros_like(inputs["bias"]),
        **case.window,
        backend="reference",
    )
    outside = sums == 0  # a window that holds a position gives 1 for each query
    actual, _ = run(inputs, case.window, "cpu")
    assert outside.float().mean() > 0.9
    assert (actual["out"][outside] == 0).all()
    check(inputs, case.window, case)
    check(lay_out(inputs, "packed"), case.window, case)


@pytest.fixture
def poisoned_memory(monkeypatch):
    """Uninitialised memory full of NaN."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("case", KERNEL_CASES[::3], ids=lambda c: c.name)
def test_writes_every_number(case):
    assert torch.empty(3).isnan().all()
    check(case.make(), case.window, case)


@pytest.mark.parametrize("name", ["two-tiles", "heads-32", "two-tiles-strided"])
def test_is_the_same_bit_for_bit_whatever_the_threads(name):
    case = next(c for c in KERNEL_CASES if c.name == name)
    inputs = lay_out(
        {k: torch.cat([v] * 3) if k in NAMES[:2] else v for k, v in case.make().items()}, "packed"
    )
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2, 3, 5):
            torch.set_num_threads(threads)
            results.append(run(inputs, case.window, "cpu")[0])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(result[k], results[0][k]) for k in result)


def test_a_batch_item_does_not_depend_on_the_others():
    case = Case("batch", (40, 70), (3, 3), batch=3, heads=8, head_dim=8)
    inputs = case.make()
    together, upstream = run(inputs, {}, "cpu")
    for i in range(3):
        one = {**inputs, "scores": inputs["scores"][i : i + 1], "value": inputs["value"][i : i + 1]}
        alone, _ = run(one, {}, "cpu", upstream[i : i + 1])
        assert all(torch.equal(alone[k][0], together[k][i]) for k in ("out", "scores", "value"))


@pytest.mark.parametrize(
    "case",
    [BY_NAME["1d-even-strided"], BY_NAME["2d-even"], BY_NAME["2d-dilated-strided-even"], BY_NAME["3d"]],
    ids=lambda c: c.name,
)
def test_gradcheck(case):
    inputs = [t.requires_grad_() for t in case.make(torch.float64).values()]
    assert torch.autograd.gradcheck(
        lambda *t: learned_query_attention(*t, **case.window, backend="cpu"), inputs, fast_mode=True
    )


def test_dispatch_takes_the_kernels():
    inputs = BY_NAME["2d-3x3"].make()
    assert learned_query_attention(**inputs).equal(learned_query_attention(**inputs, backend="cpu"))
    judged = Inputs.apart(**inputs, geometry={"stride": 1, "padding": "same", "dilation": 1, "factor": 1})
    assert select("of none", ROW.backends, judged, None) is ROW.backend("cpu")


@pytest.mark.parametrize("name", SETS)
def test_every_instruction_set_of_this_machine(name):
    before = cpu.instruction_set()
    try:
        cpu._native.use(name)
        assert cpu.instruction_set() == name
        for case in (BY_NAME["2d-two-queries-d8"], BY_NAME["2d-stride-3-rectangular"]):
            for dtype in (torch.float32, torch.float64):
                check(lay_out(case.make(dtype), "packed"), case.window, case)
    finally:
        cpu._native.use(before)


def test_frozen_inputs_get_no_gradient():
    inputs = BY_NAME["2d-3x3"].make()
    inputs["value"].requires_grad_()
    learned_query_attention(**inputs, backend="cpu").sum().backward()
    assert inputs["value"].grad is not None
    assert inputs["scores"].grad is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout):
    case = BY_NAME["2d-stride-3-rectangular"]
    inputs = lay_out(case.make(), layout)
    tensors = [inputs[k].detach().requires_grad_() for k in NAMES]
    window = (*Window.over(case.space, case.kernel, padding="same", dilation=1, **case.window).flat, 1, 1)
    torch.library.opcheck(torch.ops.qna.learned_query_cpu.default, (*tensors, window))
    torch.library.opcheck(torch.ops.qna.learned_query_cpu.default, (*tensors[:3], None, window))
    grad = torch.randn(2, 5, 4, 3, 5)
    backward = torch.ops.qna.learned_query_cpu_backward.default
    plain = [t.detach() for t in tensors]
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(backward, (grad, *plain, None, True, window), test_utils=tests)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic):
    def step(scores, value, bias, weight):
        out = learned_query_attention(scores * 2, value, bias, weight, stride=2, backend="cpu")
        return out.sin()

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for space in ((7, 15), (9, 8)):
        case = Case("c", space, (3, 3), heads=8, head_dim=8)
        for layout in ("contiguous", "packed"):
            inputs = lay_out(case.make(), layout)
            tensors = [inputs[k].detach().requires_grad_() for k in NAMES]
            out, expected = compiled(*tensors), step(*tensors)
            torch.testing.assert_close(out, expected)
            for a, e in zip(
                torch.autograd.grad(out.sum(), tensors),
                torch.autograd.grad(expected.sum(), tensors),
                strict=True,
            ):
                torch.testing.assert_close(a, e)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own, on its first compile
def test_compiles_with_inductor():
    inputs = [t.requires_grad_() for t in BY_NAME["2d-two-queries-d8"].make().values()]
    compiled = torch.compile(lambda *t: learned_query_attention(*t, backend="cpu").sin(), fullgraph=True)
    out = compiled(*inputs)
    torch.testing.assert_close(out, learned_query_attention(*inputs, backend="reference").sin())
    out.sum().backward()


def test_exports_with_a_dynamic_batch_and_map():
    class Op(torch.nn.Module):
        def forward(self, scores, value, bias):
            return learned_query_attention(scores, value, bias, backend="cpu")

    inputs = tuple(Case("e", (7, 15), (3, 3), heads=8, head_dim=8).make().values())[:3]
    dims = {0: torch.export.Dim("b"), 1: torch.export.Dim("y"), 2: torch.export.Dim("x")}
    program = torch.export.export(Op(), inputs, dynamic_shapes=(dims, dims, None))
    other = tuple(Case("e", (6, 9), (3, 3), batch=3, heads=8, head_dim=8).make().values())[:2]
    torch.testing.assert_close(
        program.module()(*other, inputs[2]), learned_query_attention(*other, inputs[2], backend="reference")
    )
