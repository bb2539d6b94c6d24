"""The published bounds, and every count against pairs of tiles looked at one by one."""

import itertools
import json
import random

import pytest

from qna._core.errors import InvalidInput
from qna.analysis import search_gna, simulate_gna
from qna.analysis.tile_simulator import patterns
from qna.cli import main

LINE, FLUX, VIDEO = ((32768,), (2048,)), ((256, 256), (80, 80)), ((30, 48, 80), (18, 24, 24))
# map and window, tiles of queries and keys, stride, bounds (mean, worst tile), block-sparse, FLOP bound
BOUNDS = [
    *((LINE, (256,), (128,), s, 14.32, 14.22, False, 16.0) for s in (1, 2, 64, 128)),
    *((LINE, (256,), (128,), s, 16.0, 16.0, True, 16.0) for s in (256, 512, 2048)),
    (FLUX, (16, 16), (16, 8), 1, 7.06, 6.10, False, 10.24),
    (FLUX, (16, 16), (16, 8), 16, 10.24, 10.24, True, 10.24),
    (VIDEO, (8, 4, 8), (2, 8, 8), 1, 5.57, 3.75, False, 11.11),
    (VIDEO, (8, 4, 8), (2, 8, 8), (16, 8, 8), 11.11, 11.11, True, 11.11),
    (VIDEO, (8, 4, 8), (4, 4, 8), (16, 8, 8), 10.67, 10.67, False, 11.11),
]


@pytest.mark.parametrize("row", BOUNDS)
def test_bounds_of_the_paper(row):
    of, q, kv, stride, mean, worst, dense, flops = row
    found = simulate_gna(*of, stride, q_tile=q, kv_tile=kv)
    # the documents round to two digits
    assert found.speedup_mean == pytest.approx(mean, abs=0.005)
    assert found.speedup_worst == pytest.approx(worst, abs=0.005)
    assert found.flop_bound == pytest.approx(flops, abs=0.005)
    assert found.block_sparse is dense


def keys(i, axis, *, alone=False):
    """The definition, query by query."""
    size, k, s, d, causal = axis
    s = 1 if alone else s
    r, m = i % d, i // d
    length = size // d + (r < size % d)
    if causal:
        start = max(min(m // s * s + s - 1, length - 1) - (k - 1), 0)
        return [r + j * d for j in range(start, m + 1)]
    start = min(max(min(m // s * s + s // 2, length - 1) - k // 2, 0), length - k)
    return [r + j * d for j in range(start, start + k)]


def by_looking(axis):
    """Visited and unmasked pairs of tiles, the most by one tile, window error, pairs of positions."""
    *axis, tq, tkv = axis
    size, d = axis[0], axis[3]
    visited = unmasked = worst = 0
    windows = [set(keys(i, axis)) for i in range(size)]
    for r in range(d):
        group = list(range(r, size, d))
        for a in range(0, len(group), tq):
            row = 0
            for b in range(0, len(group), tkv):
                pairs = [(i, j) for i in group[a : a + tq] for j in group[b : b + tkv]]
                seen = [j in windows[i] for i, j in pairs]
                row += any(seen)
                unmasked += all(seen) and b + tkv <= len(group)
            visited, worst = visited + row, max(worst, row)
    moved = sum(abs(min(windows[i]) - min(keys(i, axis, alone=True))) for i in range(size))
    return visited, unmasked, worst, moved / size, sum(map(len, windows))


def random_axis(draw):
    size = draw.randint(1, 24)
    d = draw.randint(1, min(3, size))
    k = draw.randint(1, size // d)
    return size, k, draw.randint(1, k), d, draw.random() < 0.4, draw.randint(1, 6), draw.randint(1, 6)


@pytest.mark.parametrize("seed", range(60))
def test_equals_looking_at_every_pair_of_tiles(seed):
    draw = random.Random(seed)
    axes = [random_axis(draw) for _ in range(draw.choice((1, 2)))]
    space, k, s, d, causal, tq, tkv = zip(*axes, strict=True)
    found = simulate_gna(space, k, s, q_tile=tq, kv_tile=tkv, dilation=d, is_causal=causal)
    visited = unmasked = worst = pairs = all_pairs = 1
    error = 0.0
    for axis in axes:
        v, u, w, e, p = by_looking(axis)
        visited, unmasked, worst, error, pairs = visited * v, unmasked * u, worst * w, error + e, pairs * p
        all_pairs *= axis[0] ** 2
    assert (found.visited, found.unmasked, found.worst) == (visited, unmasked, worst)
    assert found.window_error == pytest.approx(error, abs=1e-12)
    assert found.flop_bound == pytest.approx(all_pairs / pairs)
    if max(d) == 1:
        cells = [sum(cell > 0 for row in axis for cell in row) for axis in patterns(found)]
        full = [sum(cell == 2 for row in axis for cell in row) for axis in patterns(found)]
        assert (visited, unmasked) == tuple(c[0] * (c[1] if len(c) > 1 else 1) for c in (cells, full))


def test_the_front_is_what_nothing_beats():
    space, window = (12, 16), (6, 5)
    tiles = {"q_tile": (4, 4), "kv_tile": (2, 4)}
    front = [(p.window_error, p.speedup_mean) for p in search_gna(space, window, **tiles)]
    every = [
        simulate_gna(space, window, stride, **tiles) for stride in itertools.product(range(1, 7), range(1, 6))
    ]
    points = {(p.window_error, p.speedup_mean) for p in every}
    best = {(e, v) for e, v in points if not any(f <= e and w >= v and (f, w) != (e, v) for f, w in points)}
    assert front == sorted(best)
    assert len(front) > 2


def test_a_given_stride_is_kept_and_tiles_are_found():
    (found,) = search_gna(*VIDEO, (16, 8, 8))
    assert found.stride == (16, 8, 8)
    assert found.speedup_mean == pytest.approx(11.11, abs=0.005)
    assert found.block_sparse


COMMAND = ["simulate-gna", "--input", "30x48x80", "--window", "18x24x24"]


def test_the_command_prints_one_choice(capsys):
    assert main([*COMMAND, *["--stride", "16x8x8", "--q-tile", "8x4x8", "--kv-tile", "2x8x8"]]) == 0
    shown = capsys.readouterr().out
    assert "38,880 of 432,000, at most 81 by one tile" in shown
    assert "at most 11.11 in the mean, 11.11 for the worst tile" in shown
    assert "block-sparse    perfectly" in shown


def test_the_command_searches_and_draws(capsys, tmp_path):
    path = tmp_path / "pattern.png"
    assert main([*COMMAND, "--picture", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "11.11" in lines[-2]
    assert "perfectly" in lines[-2]
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_json_holds_every_count(capsys):
    given = ["--stride", "1x8x8", "--q-tile", "8x4x8", "--kv-tile", "2x8x8", "--causal", "0", "--json"]
    assert main([*COMMAND, *given]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    expected = simulate_gna(
        *VIDEO, (1, 8, 8), q_tile=(8, 4, 8), kv_tile=(2, 8, 8), is_causal=(True, False, False)
    )
    assert found["visited"] == expected.visited
    assert found["causal"] == [True, False, False]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--input", "8xa"], "--input is written as 30x48x80"),
        (["--input", "8x8", "--stride", "1x1x1"], "--stride needs one number, or one for each of 2 axes"),
        (["--input", "8x8", "--stride", "4"], "stride 4 is larger than kernel_size 3"),
        (["--input", "2x8"], "kernel_size 3 is larger than the map, which has 2 positions"),
        (["--input", "8x8", "--dilation", "3"], "kernel_size 3 with dilation 3 spans 9 positions"),
        (["--input", "8x8", "--causal", "2"], "--causal names axes from 0 to 1"),
        (["--input", "8x8x8x8"], "tiles are known for 1 to 3 axes"),
        (["--input", "8x8", "--picture", "a.jpg"], "must end in .png"),
    ],
)
def test_errors_are_one_sentence(given, words, capsys):
    assert main(["simulate-gna", "--window", "3", *given]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_tiles_must_be_sizes():
    with pytest.raises(InvalidInput, match="q_tile must be an integer of at least 1"):
        simulate_gna((8,), 3, 1, q_tile=0, kv_tile=1)
