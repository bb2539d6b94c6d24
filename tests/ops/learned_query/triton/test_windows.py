"""The Triton kernels on the CPU, run by Triton's interpreter.

Triton reads TRITON_INTERPRET when it is imported, so these tests run in a process of their own, which the two
tests at the end start.
"""

import json
from dataclasses import replace

import pytest
import torch

from qna._core.errors import NoBackend
from qna.ops import learned_query_attention, packed_learned_query_attention
from qna.ops._shared.window import Window
from qna.ops.learned_query import layout
from qna.ops.learned_query.cases import BY_NAME, CASES, Case
from qna.ops.learned_query.triton import tiles, tune, windows_plan
from qna.ops.learned_query.triton.tiles import Tile
from tests.ops.interpreter import in_a_process_of_its_own, inside, outside, silent
from tests.ops.learned_query.kernels import NAMES, assert_equals_reference, run
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

# together, every branch of the kernels: axes, strides, empty windows, masks of L, h and d, several blocks
QUICK = ("1d-even-strided", "2d-3x3", "2d-kernel-one", "2d-windows-outside", "2d-one-channel", "2d-even")


# where windows of a row share positions, more or fewer, and where they share none
SHARING = (
    "1d-even-strided",
    "2d-3x3",
    "2d-stride-2",
    "2d-stride-3-rectangular",
    "2d-dilated",
    "2d-larger-than-map",
    "2d-windows-outside",
    "3d-strided-even",
)


@inside
@by_name([BY_NAME[name] for name in QUICK])
def test_quick_cases_equal_the_reference(case):
    assert_equals_reference(case, heads_fastest(case.make(torch.float32)), "triton")


@inside
@pytest.mark.long
@pytest.mark.parametrize("layout", [heads_fastest, dict], ids=["heads-fastest", "contiguous"])
@by_name(CASES)
def test_all_cases_equal_the_reference(case, layout):
    assert_equals_reference(case, layout(case.make(torch.float32)), "triton")


@inside
@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@by_name([c for c in CASES if c.taps < 20])
def test_all_cases_in_half_precision(case, dtype):
    assert_equals_reference(case, heads_fastest(case.make(dtype)), "triton")


@inside
@by_name([BY_NAME["2d-even"], BY_NAME["1d"]])
def test_without_query_weights(case):
    assert_equals_reference(case, case.make(torch.float32, weighted=False), "triton")


@inside
@by_name([BY_NAME["2d-even"], BY_NAME["2d-windows-outside"]])
def test_scores_and_values_in_one_map(case):
    inputs = heads_fastest(case.make(torch.float32))
    expected = run(inputs, case.window, "triton")
    packed = torch.cat([inputs["value"].transpose(-1, -2), inputs["scores"]], -2)
    tensors = [t.detach().requires_grad_() for t in (packed, inputs["bias"], inputs["weight"])]
    out = packed_learned_query_attention(*tensors, **case.window, backend="triton")
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out.backward(upstream.float())
    scores, value = layout.split(tensors[0].grad, case.queries)
    grads = (out.detach(), scores, value, tensors[1].grad, tensors[2].grad)
    for name, actual in zip(NAMES, grads, strict=True):
        assert torch.equal(actual, expected[name]), name


SMALL_TILE = Tile(elements=16, heads=2, columns=2, warps=1)


@inside
@by_name([Case("blocks", (5, 6), (3, 2), heads=10, window={"stride": (1, 2)})])
def test_several_programs_and_blocks(case, monkeypatch):
    """Tiles smaller than the map, heads shared by programs, and programs that visit several blocks."""
    for plan, defaults in ((windows_plan.forward, ()), (windows_plan.backward, (None,))):
        monkeypatch.setattr(plan, "__defaults__", (*defaults, lambda *_: SMALL_TILE))
    monkeypatch.setattr(windows_plan, "PARTIAL_ROWS", 5)
    assert SMALL_TILE.block(case.space, (case.queries, case.heads, case.head_dim), True) == (4, 2, 2, 4, 2, 8)
    assert_equals_reference(case, heads_fastest(case.make(torch.float32)), "triton")
    assert_equals_reference(case, case.make(torch.float32), "triton")


@inside
@pytest.mark.long
@pytest.mark.parametrize("windows", [1, 3, 4])
@by_name([BY_NAME[name] for name in SHARING])
def test_any_number_of_windows_per_thread(case, windows, monkeypatch):
    wide = Tile(elements=1024, heads=4, columns=4, warps=4, windows=windows)
    monkeypatch.setattr(windows_plan.forward, "__defaults__", (lambda *_: wide,))
    assert_equals_reference(case, heads_fastest(case.make(torch.float32)), "triton")


@inside
def test_windows_that_share_no_positions_are_not_taken_together():
    def windows(case):
        inputs = case.make(torch.float32)
        window = Window.over(
            case.space, case.kernel, **{"stride": 1, "padding": "same", "dilation": 1, **case.window}
        )
        out = layout.empty_like(inputs["value"], window.out)
        return windows_plan.forward(*inputs.values(), out, out, window)[-1].constants["BLOCK"][6]

    row, kernel = (1, 16), (1, 3)
    assert windows(Case("", row, kernel)) == windows(Case("", row, kernel, window={"stride": (1, 2)})) == 2
    assert windows(Case("", row, kernel, window={"stride": (1, 3)})) == 1
    assert windows(Case("", row, kernel, window={"dilation": (1, 2)})) == 1


@inside
@by_name([Case("long", (40,), (17,), batch=1), Case("longer", (12,), (37,), batch=1, window={"stride": 2})])
def test_rows_of_more_taps_than_are_unrolled(case):
    assert case.kernel[0] > windows_plan.UNROLLED
    assert_equals_reference(case, heads_fastest(case.make(torch.float32)), "triton")


@pytest.fixture
def exact_windows(monkeypatch):
    """How often a program takes windows by their own maximum."""
    from qna.ops.learned_query.triton import forward

    calls, exactly = [], forward.attend_exactly
    monkeypatch.setattr(forward, "attend_exactly", lambda *args: (calls.append(args), exactly(*args)))
    return calls


@inside
@by_name([BY_NAME[name] for name in QUICK if name != "2d-windows-outside"])
def test_one_score_stands_for_all_windows_of_a_thread(case, exact_windows):
    inputs = case.make(torch.float32)
    for name in ("scores", "bias"):
        # differences of up to about 15, larger than a softmax is sensitive to
        inputs[name] = inputs[name] * 3 + 1000
    learned_query_attention(**inputs, **case.window, backend="triton")
    assert not exact_windows


def masked(inputs):
    inputs["scores"][:, 2:6, 3:9] = float("-inf")


@inside
@pytest.mark.parametrize("change", [span, far_below, far_above, one_far_above, masked])
def test_windows_far_from_the_score_that_stands_for_them(change, exact_windows):
    inputs = BY_NAME["2d-3x3"].make(torch.float32)
    change(inputs)
    expected = learned_query_attention(**{k: v.double() for k, v in inputs.items()}, backend="reference")
    actual = learned_query_attention(**inputs, backend="triton")
    assert exact_windows
    # a score of magnitude S is known to eps * S, and so is its exponential, relatively; where one of 1e30
    # counts, no other does
    scale = 1000 * float(inputs["value"].abs().max() * inputs["weight"].abs().max())
    assert_close_to_oracle(actual, expected, terms=BY_NAME["2d-3x3"].taps * 10, scale=scale)


@inside
def test_masked_taps_stay_on_the_fast_path(exact_windows):
    inputs = BY_NAME["2d-3x3"].make(torch.float32)
    inputs["bias"][0] = float("-inf")
    inputs["bias"][1, 2] = float("-inf")
    expected = learned_query_attention(**{k: v.double() for k, v in inputs.items()}, backend="reference")
    actual = learned_query_attention(**inputs, backend="triton")
    assert not exact_windows
    assert_close_to_oracle(actual, expected, terms=BY_NAME["2d-3x3"].taps * 10, scale=4.0)


@inside
@pytest.mark.parametrize("name", ["scores", "bias"])
def test_large_scores_and_biases(name):
    inputs = BY_NAME["2d-3x3"].make(torch.float32)
    large = {**inputs, name: inputs[name] * 1e4}
    expected = learned_query_attention(**{k: v.double() for k, v in large.items()}, backend="reference")
    actual = learned_query_attention(**large, backend="triton")
    # a score of 1e4 is known to eps * 1e4, and so is its exponential, relatively
    scale = float((large[name].abs().max() + 1) * inputs["value"].abs().max())
    assert_close_to_oracle(actual, expected, terms=BY_NAME["2d-3x3"].taps * 10, scale=scale)


@inside
def test_one_window_far_below_its_neighbours_does_not_vanish():
    inputs = BY_NAME["2d-3x3"].make(torch.float32)
    inputs["scores"][:, :, :5] -= 1000.0
    expected = learned_query_attention(**{k: v.double() for k, v in inputs.items()}, backend="reference")
    actual = learned_query_attention(**inputs, backend="triton")
    assert actual[:, :, 0].abs().amin() > 0
    scale = 1000 * float(inputs["value"].abs().max())
    assert_close_to_oracle(actual, expected, terms=BY_NAME["2d-3x3"].taps * 10, scale=scale)


@inside
def test_a_score_of_minus_infinity_masks_its_position():
    inputs = BY_NAME["2d-3x3"].make(torch.float32)
    inputs["scores"][:, :, 9:] = float("-inf")
    actual = run(inputs, {}, "triton")
    expected = run({k: v.double() for k, v in inputs.items()}, {}, "reference", upstream_dtype=torch.float32)
    assert (actual["out"][:, :, 11:] == 0).all()
    for name in NAMES:
        count = 1000 if name in ("bias", "weight") else 90
        assert_close_to_oracle(actual[name], expected[name], terms=count, scale=4.0, name=name)


@inside
def test_any_strides():
    """Channels-first maps, a broadcast batch and a sliced map are read where they lie, or copied."""
    case = BY_NAME["2d-3x3"]
    inputs = case.make(torch.float32)
    expected = run(inputs, {}, "triton")
    moved = {
        k: inputs[k].permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2) for k in ("scores", "value")
    }
    sliced = {k: torch.cat([t, t], 2)[:, :, : t.shape[2]] for k, t in inputs.items() if k in moved}
    for changed in (moved, sliced):
        actual = run({**inputs, **changed}, {}, "triton")
        for name in NAMES:
            torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=0)
    same = {k: inputs[k][:1].expand(2, *inputs[k].shape[1:]) for k in ("scores", "value")}
    out = learned_query_attention(**{**inputs, **same}, backend="triton")
    assert torch.equal(out[0], expected["out"][0])
    assert torch.equal(out[1], expected["out"][0])


@inside
def test_the_output_and_the_gradient_keep_the_order_of_the_channels():
    inputs = heads_fastest(BY_NAME["2d-3x3"].make(torch.float32))
    out = learned_query_attention(**inputs, backend="triton")
    assert layout.heads_fastest(out)
    assert not layout.heads_fastest(learned_query_attention(**BY_NAME["2d-3x3"].make(), backend="triton"))


@inside
def test_an_empty_batch():
    case = Case("empty", (3, 4), (3, 3), batch=0)
    result = run(case.make(torch.float32), {}, "triton")
    assert result["out"].shape == (0, 3, 4, 3, 5)
    assert (result["bias"] == 0).all()
    assert (result["weight"] == 0).all()


@inside
def test_gradients_that_are_not_wanted_are_not_computed():
    inputs = BY_NAME["2d-3x3"].make(torch.float32)
    inputs["value"].requires_grad_()
    out = learned_query_attention(**inputs, backend="triton")
    assert torch.autograd.grad(out.sum(), inputs["value"])[0].isfinite().all()
    inputs["bias"].requires_grad_()
    out = learned_query_attention(**inputs, backend="triton")
    assert torch.autograd.grad(out.sum(), inputs["bias"])[0].shape == inputs["bias"].shape


@inside
def test_compiles_without_a_graph_break():
    inputs = {k: t.requires_grad_() for k, t in heads_fastest(BY_NAME["1d"].make(torch.float32)).items()}

    def layer(scores, value, bias, weight):
        return learned_query_attention(scores * 1, value, bias, weight, backend="triton") * 2

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(**inputs)
    eager = layer(**inputs)
    torch.testing.assert_close(compiled, eager, rtol=0, atol=0)
    gradients = [torch.autograd.grad(out.sum(), list(inputs.values())) for out in (compiled, eager)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@inside
def test_exports_as_one_node_of_any_batch_and_size():
    class Layer(torch.nn.Module):
        def forward(self, scores, value, bias, weight):
            return learned_query_attention(scores, value, bias, weight, backend="triton")

    inputs = tuple(BY_NAME["1d"].make(torch.float32).values())
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("size", min=4)}
    program = torch.export.export(Layer(), inputs, dynamic_shapes=(sizes, sizes, None, None))
    other = Case("other", (13,), (3,), batch=3).make(torch.float32)
    assert torch.equal(program.module()(*other.values()), Layer()(*other.values()))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "qna.learned_query_triton_inference.default" in called
    trained = (*inputs[:2], *(t.requires_grad_() for t in inputs[2:]))
    program = torch.export.export(Layer(), trained, dynamic_shapes=(sizes, sizes, None, None))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "qna.learned_query_triton.default" in called


@inside
def test_checkpointing_and_autocast():
    inputs = {k: t.requires_grad_() for k, t in BY_NAME["1d"].make(torch.float32).items()}

    def layer(**kwargs):
        return learned_query_attention(**kwargs, backend="triton")

    kept = torch.autograd.grad(layer(**inputs).sum(), list(inputs.values()))
    out = torch.utils.checkpoint.checkpoint(layer, use_reentrant=False, **inputs)
    for a, b in zip(torch.autograd.grad(out.sum(), list(inputs.values())), kept, strict=True):
        assert torch.equal(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        half = {k: inputs[k].to(torch.bfloat16) for k in ("scores", "value")}
        out = layer(**{**inputs, **half})  # tables stay in fp32
    assert out.dtype == torch.bfloat16
    assert torch.autograd.grad(out.float().sum(), inputs["bias"])[0].dtype == torch.float32


@inside
@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.jacrev, torch.func.grad])
def test_transforms_are_refused_or_fall_back(transform):
    inputs = BY_NAME["1d"].make(torch.float32)

    def total(scores, backend):
        return learned_query_attention(**{**inputs, "scores": scores}, backend=backend).sum()

    maps = (
        inputs["scores"].expand(3, *inputs["scores"].shape)
        if transform is torch.func.vmap
        else inputs["scores"]
    )
    with pytest.raises(
        NoBackend, match=r"torch\.func transform is active, which only the reference can follow"
    ):
        transform(lambda s: total(s, "triton"))(maps)
    assert torch.equal(
        transform(lambda s: total(s, None))(maps), transform(lambda s: total(s, "reference"))(maps)
    )


@inside
def test_tuning_keeps_the_fastest_tile_and_the_table_finds_it(tmp_path, monkeypatch):
    case = Case("tuned", (2, 3), (1, 3), heads=2, head_dim=2)
    monkeypatch.setattr(tune, "CHOICES", {"heads": (1, 2), "warps": (1, 4)})
    tuned = [kernel for kernel in tiles.KERNELS if kernel != "attend_far"]
    times = iter([4.0, 5.0, 3.0] * 3)  # the tile of the table, one head, one warp; then nothing is left but
    path = tmp_path / "table.json"
    path.write_text(tiles.PATH.read_text())
    shipped = len(json.loads(path.read_text())["rows"])
    rows = tune.tune([case], torch.float32, "cpu", timer=lambda call: next(times, 9.0))
    tiles.save(rows, path)
    monkeypatch.setattr(tiles, "PATH", path)
    before = Tile(elements=1024, heads=4, columns=16, warps=4, windows=2)
    assert tiles.tile("attend", "cpu", 32, 3, 2) == replace(before, heads=2)
    assert tiles.tile("attend", "cpu", 32, 4, 2) == before
    assert tiles.tile("attend", "cpu", 16, 3, 2) == before
    assert [row["kernel"] for row in rows] == tuned
    assert "measured: 3 ms (before 4)" in rows[0]["source"]
    tiles.save(rows, path)
    assert len(json.loads(path.read_text())["rows"]) == shipped + 3
    tiles.forget()


@outside
@pytest.mark.long  # by the op's contract they run in the interpreter in every run
def test_quick_part():
    in_a_process_of_its_own(__file__, "not long")


@outside
@pytest.mark.long
def test_long_part():
    in_a_process_of_its_own(__file__, "long")
