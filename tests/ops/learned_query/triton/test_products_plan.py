"""Which calls the kernels by matrix products take; needs neither a card nor a compiler."""

import pytest
import torch

from qna.ops._shared.triton import runtime
from qna.ops._shared.window import Window
from qna.ops.learned_query.triton import products_plan as plan
from qna.ops.learned_query.triton import tiles

HALF = torch.bfloat16


@pytest.fixture(autouse=True)
def card(monkeypatch):
    monkeypatch.setattr(plan, "architecture", lambda device: "sm_90")
    monkeypatch.setattr(plan, "compiler", lambda: (3, 7))
    monkeypatch.setattr(plan, "INTERPRETED", False)


def taken(
    *, space=(56, 56), kernel=(5, 5), queries=2, heads=8, head_dim=8, dtype=HALF, fits=plan.fits, **window
):
    channels = heads * (queries + head_dim)
    row = torch.empty(2, *space, channels, dtype=dtype, device="meta")
    scores, value = row.split([queries * heads, heads * head_dim], -1)
    value = value.unflatten(-1, (head_dim, heads)).transpose(-1, -2)
    window = Window.over(space, kernel, **{"stride": 1, "padding": "same", "dilation": 1, **window})
    return fits(scores.unflatten(-1, (queries, heads)), value, window)


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"kernel": (3, 3)},
        {"kernel": (13, 13)},
        {"kernel": (4, 6), "padding": 0},
        {"queries": 1},
        {"queries": 4},
        {"heads": 7},
        *({"head_dim": d} for d in (4, 16, 32)),
        {"space": (1000,), "kernel": (9,)},
        {"space": (3, 20, 20), "kernel": (1, 5, 5)},
    ],
    ids=str,
)
def test_what_they_take(call):
    assert taken(**call)


@pytest.mark.parametrize(
    "call",
    [
        {"dtype": torch.float16},
        {"dtype": torch.float32},
        {"stride": 2},
        {"dilation": 2},
        {"queries": 3},
        {"queries": 8},
        {"head_dim": 5},
        {"head_dim": 64},
        {"space": (8, 20, 20), "kernel": (3, 3, 3)},
        {"space": (3, 20, 20), "kernel": (1, 5, 5), "padding": (1, 2, 2)},
        {"space": (1000,), "kernel": (9,), "stride": 3},
    ],
    ids=str,
)
def test_what_they_leave_to_others(call):
    assert not taken(**call)


def test_windows_are_as_large_as_their_matrices_have_room():
    """64 KiB for one head and two tables: 2 bytes times 16 windows, and chunks of 64 positions under them."""
    sides = [k for k in range(2, 40) if taken(kernel=(k, k))]
    # 22 x 22 positions under 19 x 19 taps are 8 chunks; two queries make 64 KiB of them
    assert sides == list(range(2, 20))
    assert (19 + 3) ** 2 <= 8 * 64 < (20 + 3) ** 2
    assert plan.MATRICES == 2 * 2 * 16 * 64 * 8 * 2
    assert taken(kernel=(13, 13), queries=4)
    assert not taken(kernel=(14, 14), queries=4)


def test_a_forward_of_few_taps_is_left_to_others():
    assert not taken(kernel=(3, 3), fits=plan.fits_forward)
    assert not taken(kernel=(9,), space=(100,), fits=plan.fits_forward)
    assert taken(kernel=(3, 4), fits=plan.fits_forward)
    assert not taken(kernel=(3, 4), fits=plan.fits_forward, stride=2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sm_80", True), ("sm_86", True), ("sm_120", True), ("sm_75", False), ("gfx942", False), ("cpu", False)],
)
def test_cards(name, expected, monkeypatch):
    monkeypatch.setattr(plan, "architecture", lambda device: name)
    assert taken() == expected


@pytest.mark.parametrize(("version", "expected"), [((3, 6), False), ((3, 7), True), ((4, 0), True)])
def test_compilers(version, expected, monkeypatch):
    monkeypatch.setattr(plan, "compiler", lambda: version)
    assert taken() == expected


def test_the_compiler_says_its_version(monkeypatch):
    triton = pytest.importorskip("triton")
    monkeypatch.undo()
    monkeypatch.setattr(triton, "__version__", "3.10.1+git2")
    runtime.compiler.cache_clear()
    assert runtime.compiler() == (3, 10)
    runtime.compiler.cache_clear()


def test_maps_are_as_large_as_offsets_within_a_block_allow():
    assert taken(space=(4096, 4096))
    assert taken(space=(2, 2**20, 64), kernel=(1, 5, 5))
    assert not taken(space=(64, 2**23))
    assert taken(space=(64, 2**17))
    assert taken(space=(2**30,), kernel=(5,))


def test_the_table_has_a_patch_for_every_card():
    for kernel in tiles.PRODUCTS:
        for card in ("sm_80", "sm_86", "sm_90", "sm_100", "sm_120"):
            for taps in (9, 25, 49, 169, 361):
                patch = tiles.patch(kernel, card, 16, taps, 8)
                assert patch.heads & (patch.heads - 1) == patch.chunk & (patch.chunk - 1) == 0
                assert patch.chunk >= 16
