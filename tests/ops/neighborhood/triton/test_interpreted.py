"""The Triton kernels on the CPU, run by Triton's interpreter in a process that the last tests start."""

import math
from dataclasses import replace

import pytest
import torch

from qna._core.errors import NoBackend
from qna.ops import neighborhood_attention
from qna.ops.neighborhood import ROW
from qna.ops.neighborhood.cases import CASES, NeighborhoodCase
from qna.ops.neighborhood.geometry import window_axes
from qna.ops.neighborhood.triton import plan
from qna.ops.neighborhood.triton.boxes import BoxTile, box
from tests.ops.equality import assert_equals_reference
from tests.ops.interpreter import in_a_process_of_its_own, inside, outside, silent
from tests.ops.neighborhood import drawn
from tests.ops.neighborhood.equality import D, as_, assert_equal, results

pytestmark = silent

SMALL_TILE = BoxTile(owned=16, chunk=16, warps=1, stages=1)
ROW_OF_TOKENS = NeighborhoodCase(
    "row", (19,), (3,), batch=1, heads=2, head_dim=3, extra=2, masked=True, options={"border": "mask"}
)
# together every branch of the kernels: axes, borders, masks, unequal groups, channels that fill no tile
SMALL = (
    NeighborhoodCase(
        "1d", (9,), (3,), heads=1, head_dim=17, value_dim=4, biased=True, extra=3, masked=True,
        options={"is_causal": True, "stride": 2},
    ),
    NeighborhoodCase(
        "2d", (5, 3), (2, 2), batch=1, heads=2, biased=True, options={"dilation": (2, 1), "stride": (1, 2)}
    ),
    NeighborhoodCase(
        "2d-zero", (3, 5), (2, 3), batch=1, heads=1, biased=True, masked=True,
        options={"border": "zero", "dilation": (1, 2), "is_causal": (True, False)},
    ),
    NeighborhoodCase("2d-mask", (2, 5), (5, 2), batch=1, heads=1, options={"border": "mask"}),
    NeighborhoodCase("3d", (2, 3, 2), (2, 2, 1), batch=1, heads=1, head_dim=16, biased=True),
    # whose sweeps are launches of their own
    NeighborhoodCase("wide", (2, 3), (2, 2), batch=1, heads=1, value_dim=65, biased=True, extra=2),
)  # fmt: skip


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def check(case, seed=0, **options):
    tensors = {name: as_(t, D) for name, t in case.make(seed=seed).items()}
    assert_equal(case, tensors, torch.float32, "triton", **options)


@inside
@by_name(SMALL)
def test_small_cases_equal_the_reference(case):
    check(case)


@inside
def test_several_programs_and_chunks(monkeypatch):
    monkeypatch.setattr(plan, "tile", lambda *_: SMALL_TILE)
    case = replace(ROW_OF_TOKENS, space=(35,), kernel=(21,), extra=18)
    launch = plan.forward(plan.Given.of(*arguments(case)), torch.empty(1, 35, 2, 3), None, 1.0, axes_of(case))
    assert launch[0].programs == 3 * 2
    check(case)


def arguments(case):
    made = case.make()
    names = ("q", "k", "v", "bias", "extra_keys", "extra_values", "key_mask")
    return [made.get(name) for name in names]


def axes_of(case):
    return window_axes(case.name, case.space, **case.window)


@inside
@pytest.mark.long
@by_name(CASES)
def test_all_cases_equal_the_reference(case):
    check(case)


@inside
@pytest.mark.long
@pytest.mark.parametrize("chunk", range(6))
def test_random_calls_equal_the_reference(chunk, monkeypatch):
    if chunk % 2:
        monkeypatch.setattr(plan, "tile", lambda *_: SMALL_TILE)
    for seed in range(chunk * 12, chunk * 12 + 12):
        case = drawn.call(seed)
        # an entry of the bias is a program, and a program takes its time
        few = math.prod(2 * k - 1 for k in case.kernel) * case.heads <= 60
        check(replace(case, biased=case.biased and few), seed, of_lse=bool(seed % 2))


@inside
@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@by_name(SMALL)
def test_half_precision_rounds_like_the_reference(case, dtype):
    assert_equals_reference(ROW, case, case.make(dtype), "triton")


@inside
def test_maps_of_any_strides():
    case = ROW_OF_TOKENS
    made = case.make()
    expected = results(made, case.window, "triton")
    layouts = (
        lambda t: torch.stack([t, t], -2)[..., 0, :],  # parts of one row
        lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2),  # heads fastest: copied
    )
    for layout in layouts:
        given = {name: layout(t) if name in "qkv" else t for name, t in made.items()}
        for name, found in results(given, case.window, "triton").items():
            assert torch.equal(found, expected[name]), name
    same = {name: t[:, :1].expand(t.shape) if name in "qkv" else t for name, t in made.items()}
    copied = {name: t.contiguous() for name, t in same.items()}
    out, again = (neighborhood_attention(**t, **case.window, backend="triton") for t in (same, copied))
    assert torch.equal(out, again)


@inside
@pytest.mark.parametrize("name", ["k", "v"])
def test_what_a_mask_hides_may_be_nan(name):
    case = ROW_OF_TOKENS
    tensors = case.make()
    hidden = ~tensors["key_mask"][..., None, None]
    spoiled = {**tensors, name: tensors[name].masked_fill(hidden, math.nan)}
    for a, e in zip(*(results(t, case.window, "triton").values() for t in (spoiled, tensors)), strict=True):
        assert torch.equal(a, e)


@inside
def test_a_query_that_attends_nothing_gives_zero_and_no_gradient():
    case = replace(ROW_OF_TOKENS, extra=0)
    nothing = torch.zeros(1, *case.space, dtype=torch.bool)
    found = results({**case.make(), "key_mask": nothing}, case.window, "triton")
    assert (found.pop("lse") == -math.inf).all()
    assert all((t == 0).all() for t in found.values())


@inside
@pytest.mark.parametrize("size", [1e3, 1e6])
def test_scores_of_any_size(size):
    case = replace(ROW_OF_TOKENS, extra=0, masked=False, kernel=(15,))
    tensors = {name: as_(t, D) for name, t in case.make().items()}
    tensors["q"] = tensors["q"] * size
    single = {name: as_(t, torch.float32) for name, t in tensors.items()}
    out = neighborhood_attention(**single, **case.window, backend="triton")
    expected = neighborhood_attention(**tensors, **case.window, backend="reference")
    # a score of magnitude s carries an error of eps s, and so does its exponential, relatively
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=2.0**-23 * 8 * size * 8)


@inside
def test_no_extra_keys_and_an_empty_batch():
    case = replace(ROW_OF_TOKENS, extra=0)
    tensors = case.make()
    none = {"extra_keys": torch.zeros(1, 0, 2, 3), "extra_values": torch.zeros(1, 0, 2, 3)}
    expected = results(tensors, case.window, "triton")
    found = results({**tensors, **none}, case.window, "triton")
    assert all(torch.equal(found[name], t) for name, t in expected.items())
    assert found["extra_keys"].shape == (1, 0, 2, 3)
    empty = results({name: t[:0] for name, t in tensors.items()}, case.window, "triton")
    assert empty["q"].shape == (0, 19, 2, 3)


@inside
def test_a_dilation_beyond_the_map():
    check(replace(ROW_OF_TOKENS, space=(5,), kernel=(3,), options={"border": "zero", "dilation": 2**30}))


@inside
def test_it_declines_what_it_does_not_take():
    wide = NeighborhoodCase("wide", (3,), (3,), head_dim=260)
    for case, dtype, words in (
        (wide, torch.float32, "head_dim is 260, needs at most 256"),
        (ROW_OF_TOKENS, D, r"dtype is float64, needs one of \(float32, bfloat16, float16\)"),
    ):
        with pytest.raises(NoBackend, match=words):
            neighborhood_attention(**case.make(dtype), **case.window, backend="triton")


def test_a_box_has_the_shape_that_needs_the_fewest_chunks():
    def shape(space, kernel, owned=64, chunk=32, **window):
        return box(window_axes("", space, kernel, **window), owned, chunk)

    assert shape((4096,), 129) == (1, 1, 64)
    assert shape((200, 200), 13) == (1, 8, 8)
    assert shape((56, 56), (1, 9)) == (1, 1, 64)
    assert shape((56, 56), (9, 1)) == (1, 64, 1)
    assert shape((16, 16, 16), (3, 3, 3)) == (4, 4, 4)


def test_tables_tell_who_sees_whom():
    """Queries of a key are those that have it among their keys, for all borders."""
    for border in ("clamp", "mask", "zero"):
        for causal in (False, True):
            (axis,) = window_axes("", (13,), 4, stride=3, dilation=2, is_causal=causal, border=border)
            tables = plan.ranges((axis,), torch.device("cpu")).view(-1)[8:].view(4, 13).tolist()
            first, last, begin, end = tables
            for key in range(13):
                seen = [i for i in range(13) if i % 2 == key % 2 and first[i] <= key // 2 < last[i]]
                assert seen == [2 * m + key % 2 for m in range(begin[key], end[key])]


@outside
def test_by_the_interpreter():
    in_a_process_of_its_own(__file__, "not long")


@outside
@pytest.mark.long
def test_long_part_by_the_interpreter():
    in_a_process_of_its_own(__file__, "long")
