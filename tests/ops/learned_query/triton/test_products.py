"""The kernels by matrix products, run by Triton's interpreter; which calls they take, and when they give up.

In the interpreter operands stay in fp32, so what is tested is every sum, mask and index, not their rounding.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qna.ops import learned_query_attention
from qna.ops._shared.window import Window
from qna.ops.learned_query.cases import Case
from qna.ops.learned_query.layout import empty_like
from qna.ops.learned_query.triton import backend as triton
from qna.ops.learned_query.triton import products_plan, tiles, tune, windows_plan
from qna.ops.learned_query.triton.tiles import PRODUCTS, Patch
from tests.ops.interpreter import in_a_process_of_its_own, inside, outside, silent
from tests.ops.learned_query.kernels import assert_equals_reference, run
from tests.ops.learned_query.triton.interpreter import (
    by_name,
    far_above,
    far_below,
    heads_fastest,
    one_far_above,
    span,
)
from tests.ops.tolerance import assert_close_to_oracle

pytestmark = silent

FIVE = Case("5x5", (6, 9), (5, 5), batch=1, heads=2, head_dim=8)
QUICK = (
    FIVE,
    Case("one-query", (3, 9), (5, 3), batch=1, queries=1, heads=1, head_dim=8),
    Case("unpadded-even", (6, 9), (4, 6), batch=1, heads=2, head_dim=4, window={"padding": 0}),
)
SLOW = (
    Case("four-queries", (7, 10), (5, 5), queries=4, heads=4, head_dim=8),
    Case("row", (37,), (13,), heads=4, head_dim=8),
    Case("even-row", (40,), (10,), heads=2, head_dim=16, window={"padding": 1}),
    Case("padded-even", (9, 12), (4, 6), heads=4, head_dim=8, window={"padding": 1}),
    Case("unpadded", (8, 13), (5, 5), heads=4, head_dim=8, window={"padding": 0}),
    Case("planes", (3, 6, 9), (1, 3, 3), heads=2, head_dim=8),
    Case("planes-5x5", (2, 6, 9), (1, 5, 5), heads=2, head_dim=8),
    Case("seven", (10, 14), (7, 7), batch=1, heads=8, head_dim=8),
    Case("larger-than-map", (3, 4), (9, 9), heads=2, head_dim=8),
    Case("windows-outside", (3, 4), (5, 5), heads=2, head_dim=8, window={"padding": 6}),
    Case("six-heads-of-4", (7, 10), (5, 5), heads=6, head_dim=4),
    Case("heads-of-16", (7, 10), (5, 5), heads=3, head_dim=16),
    Case("heads-of-32", (7, 10), (5, 5), heads=2, head_dim=32),
    Case("one-pixel", (1, 1), (5, 5), heads=2, head_dim=8),
)
HALF = torch.bfloat16


@pytest.fixture
def launched(monkeypatch):
    """The launches of a call, in their order."""
    launches, launch_it = [], triton.run
    monkeypatch.setattr(triton, "run", lambda launch: (launches.append(launch), launch_it(launch))[1])
    return launches


def names(launches):
    return [launch.kernel for launch in launches]


def flags(launches):
    """The flag `far` of a forward and of a backward, after these have run."""
    return [int(launch.arguments[3]) for launch in launches if launch.kernel == "lay_out"]


FORWARD = ["lay_out", "attend_by_products", "attend_far"]
BACKWARD = ["lay_out", "sum_inside_by_products", "gather_by_products", "correlate", "fold"]
IF_FAR = ["sum_inside", "gather", "add_up"]


LAYOUTS = pytest.mark.parametrize("layout", [heads_fastest, dict], ids=["heads-fastest", "contiguous"])


@inside
@by_name(QUICK[:1])
def test_equals_the_reference(case, launched):
    assert_equals_reference(case, heads_fastest(case.make(HALF)), "triton")
    assert names(launched) == [*FORWARD, *BACKWARD, *IF_FAR]
    assert flags(launched) == [0, 0]


@inside
def test_every_sub_pixel_has_a_round_of_its_own(launched):
    case = Case(
        "upsampled", (5, 9), (5, 3), batch=1, queries=4, heads=2, head_dim=8, window={"factor": (1, 2)}
    )
    assert_equals_reference(case, heads_fastest(case.make(HALF)), "triton")
    assert names(launched) == [*2 * FORWARD, *2 * [*BACKWARD, *IF_FAR]]


@inside
def test_channels_fastest_equals_the_reference():
    assert_equals_reference(FIVE, FIVE.make(HALF), "triton")


@inside
@pytest.mark.long
@LAYOUTS
@by_name([*QUICK, *SLOW])
def test_all_equal_the_reference(case, layout, launched):
    assert_equals_reference(case, layout(case.make(HALF)), "triton")
    assert names(launched)[-8:] == [*BACKWARD, *IF_FAR]
    # windows without a position have no sum, of which the kernels only know that it is too small
    some = case.name != "windows-outside"
    assert flags(launched)[0] != some
    assert flags(launched)[-1] == 0


@inside
def test_without_query_weights(launched):
    assert_equals_reference(FIVE, heads_fastest(FIVE.make(HALF, weighted=False)), "triton")
    assert flags(launched) == [0, 0]


@inside
def test_windows_of_few_taps_go_to_threads_forward_and_to_products_backward(launched):
    case = Case("3x3", (4, 5), (3, 3), batch=1, heads=2, head_dim=8)
    assert case.taps == products_plan.FEW_TAPS
    assert_equals_reference(case, heads_fastest(case.make(HALF)), "triton")
    assert names(launched) == ["tabulate", "attend", *BACKWARD, *IF_FAR]
    assert flags(launched) == [0]


@inside
@pytest.mark.parametrize("kernel", ["fp32", "strided", "3-D"])
def test_what_they_do_not_take_goes_to_threads(kernel, launched):
    case = {
        "fp32": Case("", (2, 5), (3, 5), 1, 1, 1, 8),
        "strided": Case("", (2, 5), (3, 5), 1, 1, 1, 8, {"stride": 2}),
        "3-D": Case("", (2, 2, 5), (2, 3, 3), 1, 1, 1, 8),
    }[kernel]
    assert_equals_reference(case, case.make(torch.float32 if kernel == "fp32" else HALF), "triton")
    assert names(launched) == ["tabulate", "attend", *IF_FAR]


@inside
@pytest.mark.long
@pytest.mark.parametrize(("heads", "together", "programs"), [(2, 1, 16), (6, 2, 24)])
def test_several_programs_blocks_chunks_and_parts(heads, together, programs, launched, monkeypatch):
    """Blocks smaller than the map, heads shared by programs, programs that visit several blocks."""
    case = Case("blocks", (9, 17), (5, 5), batch=1, heads=heads, head_dim=8)
    small = Patch(patches=2, heads=together, chunk=16, warps=1, programs=programs)
    for plan in (products_plan.forward, products_plan.backward):
        monkeypatch.setattr(plan, "__defaults__", (lambda *_: small,))
    assert_equals_reference(case, heads_fastest(case.make(HALF)), "triton")
    by_name = {launch.kernel: launch for launch in launched}
    parts = heads // math.gcd(heads, small.heads)
    # 3 rows of 3 blocks of two patches; 64 positions under a patch
    for kernel in PRODUCTS:
        assert by_name[kernel].constants["PATCH"] == (4, 4, 16, 4, 2, heads // parts), kernel
        jobs = parts * (4 if kernel == "correlate" else 1)
        assert jobs < by_name[kernel].programs < 9 * jobs, kernel
    assert flags(launched) == [0, 0]


def masked_taps(inputs):
    inputs["scores"][:, 2:4, 3:6] = float("-inf")
    inputs["bias"][0] = float("-inf")


def masked_windows(inputs):
    inputs["scores"][:, :, :7] = float("-inf")


# what is changed, and whether a forward and a backward then set the flag: scores so far below that they count
# for nothing are nothing to a forward; the shares of the windows there are, to a backward
FAR = pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(far_below, [0, 1], marks=pytest.mark.long),
        pytest.param(far_above, [1, 1], marks=pytest.mark.long),
        pytest.param(one_far_above, [1, 1], marks=pytest.mark.long),
        (span, [1, 1]),
        pytest.param(masked_windows, [1, 0], marks=pytest.mark.long),
        pytest.param(masked_taps, [0, 0], marks=pytest.mark.long),
    ],
)


@inside
@FAR
def test_windows_far_from_the_score_that_stands_for_them(change, expected, launched):
    """The kernels say so, and those that take every window by itself do the call again."""
    inputs = FIVE.make(HALF)
    change(inputs)
    assert_equals_reference(FIVE, heads_fastest(inputs), "triton")
    assert flags(launched) == expected


@inside
@pytest.mark.long
@FAR
def test_far_windows_of_maps_with_the_channels_fastest(change, expected, launched):
    inputs = FIVE.make(HALF)
    change(inputs)
    assert_equals_reference(FIVE, inputs, "triton")
    assert flags(launched) == expected


def tensors(case):
    """Inputs, window, and the tensors that a forward and a backward fill, full of what they never write."""
    inputs = heads_fastest(case.make(HALF))
    window = Window.over(case.space, case.kernel, stride=1, padding="same", dilation=1)
    out = empty_like(inputs["value"], window.out).fill_(77)
    lse = torch.full((*out.shape[:-2], case.queries, case.heads), 77.0)
    maps = (torch.full_like(inputs["scores"], 77), empty_like(inputs["value"], case.space).fill_(77))
    tables = tuple(torch.full_like(inputs[name], 77) for name in ("bias", "weight"))
    return tuple(inputs.values()), window, (out, lse), (*maps, *tables)


def fill(launches):
    for launch in launches:
        triton.run(launch)


@inside
@pytest.mark.parametrize("far", [pytest.param(0, marks=pytest.mark.long), 1])
def test_the_flag_alone_decides_whether_a_call_is_done_again(far):
    """Not set, the kernels that would do it write nothing; set, they write everything, as without a flag."""
    inputs, window, results, grads = tensors(FIVE)
    upstream = torch.ones_like(results[0])
    kept = torch.zeros_like(results[1])
    forward = products_plan.forward(*inputs, *results, window)
    backward = products_plan.backward(upstream, *inputs, kept, grads, window)
    again = [*forward[2:], *backward[5:]]
    assert names(again) == ["attend_far", *IF_FAR]
    for lay_out in (forward[0], backward[0]):
        lay_out.arguments[3].fill_(far)
    fill(again)
    if not far:
        assert all((t == 77).all() for t in (*results, *grads))
        return
    _, _, other_results, other_grads = tensors(FIVE)
    fill(windows_plan.forward(*inputs, *other_results, window))
    fill(windows_plan.backward(upstream, *inputs, kept, other_grads, window))
    # the same sums, of exponentials relative to other numbers
    for actual, expected in zip((*results, *grads), (*other_results, *other_grads), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-2 if actual.dtype == HALF else 1e-4, atol=1e-5)


@inside
@pytest.mark.long
def test_both_plans_keep_the_same_log_sum_exp():
    inputs, window, (_, by_threads), _ = tensors(FIVE)
    _, _, (_, by_products), _ = tensors(FIVE)
    for plan, lse in ((windows_plan, by_threads), (products_plan, by_products)):
        fill(plan.forward(*inputs, empty_like(inputs[1], window.out), lse, window))
    scale = float(inputs[0].abs().max() + inputs[2].abs().max())
    assert_close_to_oracle(by_products, by_threads.double(), terms=FIVE.taps, scale=scale)


class Ops(TorchDispatchMode):
    """Names of the ops that run, and what they make."""

    def __init__(self):
        super().__init__()
        self.names, self.shapes = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.names.append(str(func))
        self.shapes.append(tuple(result.shape) if isinstance(result, torch.Tensor) else None)
        return result


@inside
@pytest.mark.parametrize("case", [FIVE, Case("3x3", (3, 3), (3, 3), 1, 1, 1, 8)], ids=lambda c: c.name)
def test_a_call_without_gradients_keeps_no_log_sum_exp(case, launched):
    inputs = heads_fastest(case.make(HALF))
    with Ops() as seen:
        alone = learned_query_attention(**inputs, backend="triton")
    assert "qna.learned_query_triton_inference.default" in seen.names
    inputs["bias"].requires_grad_()
    with torch.no_grad():
        learned_query_attention(**inputs, backend="triton")
    kept = [r for launch in launched for r in launch.arguments if is_results(r, alone)]
    assert kept
    assert all(lse is None for _, lse in kept)
    launched.clear()
    assert torch.equal(learned_query_attention(**inputs, backend="triton"), alone)
    kept = [r for launch in launched for r in launch.arguments if is_results(r, alone)]
    (shape,) = {lse.shape for _, lse in kept}
    assert shape == (case.batch, *case.space, case.queries, case.heads)


def is_results(argument, out):
    """Whether an argument of a launch is the pair of output and log-sum-exp."""
    pair = isinstance(argument, tuple) and len(argument) == 2
    return pair and isinstance(argument[0], torch.Tensor) and argument[0].shape == out.shape


@inside
@pytest.mark.long
@pytest.mark.parametrize("training", [True, False])
def test_opcheck(training):
    case = Case("opcheck", (3, 4), (3, 5), batch=1, queries=1, heads=2, head_dim=8)
    inputs = [t.detach().requires_grad_(training) for t in heads_fastest(case.make(HALF)).values()]
    op = torch.ops.qna.learned_query_triton if training else torch.ops.qna.learned_query_triton_inference
    torch.library.opcheck(op, (*inputs, [1, 1, 1, 1, 1, 2, 3, 4, 1, 1]))


@inside
def test_two_runs_agree_bit_for_bit():
    inputs = heads_fastest(FIVE.make(HALF))
    first, second = (run(inputs, {}, "triton") for _ in range(2))
    for name, t in first.items():
        assert torch.equal(t, second[name]), name


@inside
@pytest.mark.long
def test_tuning_measures_them_with_the_others_as_found(tmp_path, monkeypatch):
    case = Case("tuned", (4, 9), (3, 5), batch=1, heads=2, head_dim=8)
    monkeypatch.setattr(tune, "CHOICES", {})
    monkeypatch.setattr(tune, "PATCHES", {"chunk": (16, 32), "warps": (1, 4)})
    seen = []
    timed = tune._time

    def take(trial, written, timer):
        seen.append({launch.kernel: launch.constants.get("PATCH") for launch in trial.launches})
        return timed(trial, written, timer)

    monkeypatch.setattr(tune, "_time", take)
    # of each kernel the row of the table and what differs from it, chunks of 16 and one warp
    times = iter([9.0] * 3 + [4.0, 5.0, 5.0] + [4.0, 3.0])  # then nothing is better
    rows = tune.tune([case], HALF, "cpu", timer=lambda call: next(times, 9.0))
    assert [row["kernel"] for row in rows[-4:]] == list(PRODUCTS)
    assert "attend_far" not in {row["kernel"] for row in rows}
    path = tmp_path / "table.json"
    path.write_text(tiles.PATH.read_text())
    tiles.save(rows, path)
    monkeypatch.setattr(tiles, "PATH", path)
    tiles.forget()
    before = Patch(patches=2, heads=4, chunk=32, warps=4, programs=4)
    assert tiles.patch("gather_by_products", "cpu", 16, 15, 8) == replace(before, chunk=16)
    assert tiles.patch("gather_by_products", "cpu", 16, 16, 8) == before
    assert tiles.patch("attend_by_products", "cpu", 16, 15, 8) == before
    # 6 x 8 positions under a patch, in the chunks that were found for the kernel tuned before
    assert seen[-1]["gather_by_products"][2:4] == (16, 3)
    tiles.forget()


@outside
def test_quick_part():
    in_a_process_of_its_own(__file__, "not long")


@outside
@pytest.mark.long
def test_long_part():
    in_a_process_of_its_own(__file__, "long")
