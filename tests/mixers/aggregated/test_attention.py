"""Aggregated attention: its definition written as a loop, its limits, two ways to join two sets of keys."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qna._core.errors import InvalidInput
from qna.mixers import AggregatedAttention2d, LengthScaledAttention2d
from qna.mixers.aggregated import attention, pooled
from qna.mixers.aggregated.pooled import join_pooled
from tests.mixers.contract import randomise


def layer(kind=AggregatedAttention2d, dim=6, num_heads=2, **options):
    mixer = kind(dim, num_heads=num_heads, **options).double()
    randomise(mixer)
    return mixer


def a_map(*space, batch=2, dim=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *space, dim, generator=g, dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def cells_of(size, count):
    """Positions of each cell of an axis: as torch's adaptive pooling has them."""
    return [range(p * size // count, -(-(p + 1) * size // count)) for p in range(count)]


def bias_of(position_bias, distances, trained):
    """The bias of distances along both axes, in positions."""
    scaled = torch.tensor(
        [8 * d / max(n - 1, 1) for d, n in zip(distances, trained, strict=True)], dtype=torch.float64
    )
    logs = scaled.sign() * (scaled.abs() + 1).log2() / math.log2(8)
    return position_bias.fc2(position_bias.fc1(logs).relu())


def softmax_and_values(mixer, x, i, j):
    """Of one position of one image: (h, keys) shares, (keys, h, d) values, offsets of those around it."""
    height, width = x.shape[:2]
    heads = (mixer.num_heads, -1)
    q = F.normalize(mixer.q(x[i, j]).view(heads), dim=-1)
    rows, columns = (k // 2 for k in mixer.kernel_size)
    near = [
        (a, b)
        for a, b in product(range(-rows, rows + 1), range(-columns, columns + 1))
        if 0 <= i + a < height and 0 <= j + b < width
    ]
    down, across = (
        cells_of(n, min(n, fixed) if fixed else max(n // ratio, 1))
        for n, ratio, fixed in zip(
            (height, width), mixer.pool_ratio, mixer.pool_size or (None, None), strict=True
        )
    )
    mapped = F.gelu(x @ mixer.sr.weight.flatten(1).T + mixer.sr.bias)
    sources = [x[i + a, j + b] for a, b in near]
    sources += [mixer.norm(mapped[list(r)][:, list(c)].mean((0, 1))) for r, c in product(down, across)]
    keys, values = (t.unflatten(-1, heads) for t in mixer.kv(torch.stack(sources)).split(mixer.dim, -1))
    queries = mixer.queries
    scaled = (q + queries.embedding[:, 0]) * F.softplus(queries.temperature[:, 0]) * math.log(len(sources))
    scores = torch.einsum("hd,khd->hk", scaled, F.normalize(keys, dim=-1))
    table = mixer.local_bias.unflatten(1, mixer.kernel_size)
    trained = mixer.pretrain_size or (height, width)
    biases = [table[:, a + rows, b + columns] for a, b in near]
    biases += [
        bias_of(mixer.position_bias, (i - (r[0] + r[-1]) / 2, j - (c[0] + c[-1]) / 2), trained)
        for r, c in product(down, across)
    ]
    return q, (scores + torch.stack(biases, 1)).softmax(1), values, near


def by_definition(mixer, x):
    """One position at a time."""
    y = torch.zeros_like(x)
    rows, columns = (k // 2 for k in mixer.kernel_size)
    for b, i, j in product(*map(range, x.shape[:3])):
        q, shares, values, near = softmax_and_values(mixer, x[b], i, j)
        after = torch.zeros_like(shares)
        for place, (down, across) in enumerate(near):
            tap = (down + rows) * mixer.kernel_size[1] + across + columns
            after[:, place] = (q * mixer.tokens[:, :, tap]).sum(1) + mixer.token_bias[:, 0, tap]
        y[b, i, j] = mixer.proj(torch.einsum("hk,khd->hd", shares + after, values).flatten())
    return y


CASES = [
    ((4, 6), {"pool_ratio": 2, "pretrain_size": 7}),
    # cells that overlap, and of unequal numbers
    ((5, 7), {"pool_ratio": (2, 3), "pretrain_size": (9, 4)}),
    ((6, 4), {"pool_size": (4, 3)}),
    # windows larger than the map, and a map shorter than a cell
    ((3, 2), {"kernel_size": (7, 5), "pool_ratio": 8, "pretrain_size": 1}),
    ((1, 1), {"pool_ratio": 2}),
    ((1, 5), {"pool_ratio": 1, "kernel_size": (1, 3)}),
]


@pytest.mark.parametrize(("space", "options"), CASES, ids=str)
@pytest.mark.parametrize("with_gradients", [False, True])
def test_it_is_its_definition(space, options, with_gradients):
    mixer, x = layer(**options), a_map(*space)
    with torch.no_grad():
        expected = by_definition(mixer, x)
    with torch.set_grad_enabled(with_gradients):
        close(mixer(x), expected)


@pytest.mark.parametrize(("space", "options"), CASES[:3], ids=str)
@torch.no_grad()
def test_what_it_shows_is_the_softmax(space, options):
    mixer, x = layer(**options), a_map(*space)
    shares = mixer.attention_map(x)
    close(shares.sum(-1), torch.ones(shares.shape[:-1]).double())
    taps = math.prod(mixer.kernel_size)
    for i, j in product(*map(range, space)):
        _, expected, _, near = softmax_and_values(mixer, x[0], i, j)
        rows, columns = (k // 2 for k in mixer.kernel_size)
        seen = [(a + rows) * mixer.kernel_size[1] + b + columns for a, b in near]
        close(shares[0, i, j, :, [*seen, *range(taps, shares.shape[-1])]], expected)
        assert not shares[0, i, j, :, [t for t in range(taps) if t not in seen]].any()


@torch.no_grad()
def test_weights_sum_to_one_without_what_comes_after_the_softmax():
    mixer, x = layer(pool_ratio=2), a_map(5, 6)
    # all values alike, of positions and of cells
    mixer.kv.weight[6:] = 0
    y = mixer(x)
    nn.init.zeros_(mixer.tokens)
    nn.init.zeros_(mixer.token_bias)
    close(mixer(x), mixer.proj(mixer.kv.bias[6:]).expand_as(x))
    assert not torch.allclose(y, mixer(x))


@torch.no_grad()
def test_queries_grow_with_the_keys_that_there_are():
    mixer = layer(pool_ratio=2, kernel_size=3)
    keys = mixer._keys_of(a_map(4, 6))
    assert keys[0, 0] == 4 + 6
    assert keys[0, 2] == keys[1, 0] == 6 + 6
    assert keys[1, 2] == 9 + 6
    queries, q = mixer.queries, torch.ones(1, 1, 1, 2, 3, dtype=torch.float64)
    nn.init.zeros_(queries.embedding)
    nn.init.constant_(queries.temperature, math.log(math.expm1(2)))
    close(queries(q, torch.tensor([[10.0]])), q * 2 * math.log(10))


@torch.no_grad()
def test_equal_distances_have_one_bias():
    mixer = layer(pool_ratio=2, pretrain_size=5)
    for space in ((8, 12), (7, 5)):
        axes = mixer._cells((1, *space, 6))
        bias = mixer.position_bias(axes).unflatten(1, space).unflatten(3, [axis.cells for axis in axes])
        for (i, j), (p, q) in (((0, 0), (0, 0)), ((6, 3), (1, 1)), ((3, 4), (2, 0))):
            middle = [sum(c[k]) / 2 for c, k in zip(_ends(axes), (p, q), strict=True)]
            close(bias[:, i, j, p, q], bias_of(mixer.position_bias, (i - middle[0], j - middle[1]), (5, 5)))
    # one entry for each distance that there is: of cells of 2 in 8 and 12 positions
    assert mixer.position_bias.macs(mixer._cells((1, 8, 12, 6))) == 14 * 22 * 512 * (2 + 2)


def _ends(axes):
    return [[(c[0], c[-1]) for c in cells_of(axis.size, axis.cells)] for axis in axes]


@pytest.mark.parametrize(("size", "cells"), [(6, 3), (7, 3), (5, 5), (4, 1), (9, 8)])
def test_cells_are_those_of_adaptive_pooling(size, cells):
    x = a_map(size, 4)
    axes = attention.pooled_axes((size, 4), (cells, 2))
    pooled_map = attention.pool(x, axes)
    close(pooled_map, F.adaptive_avg_pool2d(x.movedim(-1, 1), (cells, 2)).movedim(1, -1))
    down, across = (axis.averages(x) for axis in axes)
    close(torch.einsum("ph,bhwc,qw->bpqc", down, x, across), pooled_map)


def test_both_ways_to_join_give_values_and_gradients_of_one_softmax():
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64, requires_grad=True)

    q, k, v, bias = draw(2, 3, 4, 2, 5), draw(2, 6, 2, 5), draw(2, 6, 2, 5), draw(2, 12, 6)
    others = draw(2, 3, 4, 2, 7), draw(2, 3, 4, 2, 7, 5)
    leaves = (q, k, v, bias, *others)

    def one_softmax():
        far = torch.einsum("bxyhd,bmhd->bxyhm", q, k) + bias.transpose(0, 1).unflatten(0, (3, 4))
        shares = torch.cat([others[0], far], -1).softmax(-1)
        near = torch.einsum("bxyhm,bxyhmd->bxyhd", shares[..., :7], others[1])
        return near + torch.einsum("bxyhm,bmhd->bxyhd", shares[..., 7:], v)

    def joined(way):
        lse = others[0].logsumexp(-1)
        local = torch.einsum("bxyhm,bxyhmd->bxyhd", others[0].softmax(-1), others[1])
        formed, pooled._formed = pooled._formed, getattr(pooled, way)
        try:
            return join_pooled(local, lse, q, k, v, bias=F.pad(bias, (1, 0)))
        finally:
            pooled._formed = formed

    expected = one_softmax()
    grads = torch.autograd.grad(expected.sin().sum(), leaves)
    for way in ("_formed", "_fused"):
        y = joined(way)
        close(y, expected)
        for found, grad in zip(torch.autograd.grad(y.sin().sum(), leaves), grads, strict=True):
            close(found, grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_in_half_precision_the_share_of_the_neighbourhood_is_not_rounded_away(dtype):
    """Its score is a number of two halves: of one, e^20 would be off by a tenth."""
    lse = torch.linspace(15, 20, 12).view(1, 3, 4, 1)
    q, k = torch.zeros(1, 3, 4, 1, 8, dtype=dtype), torch.zeros(1, 2, 1, 8, dtype=dtype)
    bias = F.pad(torch.full((1, 12, 2), 17.0), (1, 0))
    local, v = torch.ones_like(q), torch.zeros_like(k)
    y = join_pooled(local, lse, q, k, v, bias=bias)
    expected = lse.exp() / (lse.exp() + 2 * math.exp(17))
    assert (y[..., 0].float() / expected - 1).abs().max() < 4 * torch.finfo(dtype).eps


def test_with_dropout_of_the_softmax_it_is_the_same_function(monkeypatch):
    mixer, x = layer(pool_ratio=2, attn_drop=0.5), a_map(4, 7)
    expected = mixer.eval()(x)
    assert not torch.allclose(mixer.train()(x), expected)
    monkeypatch.setattr(attention.F, "dropout", lambda t, p, *_: t)
    close(mixer(x), expected)


@pytest.mark.parametrize("kind", [AggregatedAttention2d, LengthScaledAttention2d])
def test_gradients(kind):
    options = {"pool_ratio": 2, "kernel_size": (1, 3)} if kind is AggregatedAttention2d else {}
    mixer, x = layer(kind, dim=2, num_heads=1, **options), a_map(2, 3, batch=1, dim=2).requires_grad_()
    # the hidden layer has 512 units: of its inputs alone
    named = {n: p for n, p in mixer.named_parameters() if not n.startswith("position_bias")}
    named["position_bias.fc2.bias"] = mixer.position_bias.fc2.bias

    def call(x, *values):
        return torch.func.functional_call(mixer, dict(zip(named, values, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x, *named.values()))


@torch.no_grad()
def test_rows_tell_positions_of_the_map():
    mixer, x = layer(pool_ratio=2), a_map(4, 6)
    rows = mixer.attention_rows(x)
    close(rows.shares.sum(-1), torch.ones(2, 24).double())
    shares = mixer.attention_map(x).mean(3)[0, 1, 2]
    dense = rows.dense(24)[0, 8].unflatten(0, (4, 6))
    # of the position (2, 4): not around (1, 2), one of four of its cell
    close(dense[2, 4], shares[9 + 5] / 4)
    close(dense[0, 1], shares[0] + shares[9] / 4)


def test_even_attention_is_one_everywhere():
    for mixer in (layer(pool_ratio=2), layer(LengthScaledAttention2d)):
        for parameter in mixer.parameters():
            nn.init.zeros_(parameter)
        for space in ((5, 6), (4, 4)):
            close(mixer.attention_received(a_map(*space)), torch.ones(2, *space).double())


def test_multiply_adds():
    mixer = layer(pool_ratio=2)
    bias = mixer.position_bias.macs(mixer._cells((1, 4, 6, 6)))
    pairs = (2 + 3 + 3 + 2) * (2 + 3 * 4 + 2)
    linear = (24 * 5 + 6 * 2) * 36
    assert mixer.macs((2, 4, 6, 6)) - bias == 2 * (linear + (3 * pairs + 24 * 9 + 2 * 24 * 6) * 6)


def test_cells_of_a_fixed_number_cost_what_positions_do():
    mixer = layer(pool_size=3)

    def without_bias(side):
        return mixer.macs((1, side, side, 6)) - mixer.position_bias.macs(mixer._cells((1, side, side, 6)))

    assert without_bias(80) == pytest.approx(4 * without_bias(40), rel=0.02)


# the attention of a whole map


@torch.no_grad()
def test_the_whole_map_by_its_definition():
    mixer, (height, width) = layer(LengthScaledAttention2d, pretrain_size=(4, 3)), (3, 4)
    x = a_map(height, width)
    q, k, v = mixer.qkv(x).flatten(1, 2).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    queries = mixer.queries
    q = (q + queries.embedding) * F.softplus(queries.temperature) * math.log(12)
    places = list(product(range(height), range(width)))
    bias = torch.stack(
        [bias_of(mixer.position_bias, (a - c, b - d), (4, 3)) for (a, b), (c, d) in product(places, places)]
    )
    shares = (q @ k.transpose(-1, -2) + bias.T.reshape(2, 12, 12)).softmax(-1)
    close(mixer(x), mixer.proj((shares @ v).transpose(1, 2).reshape(x.shape)))
    close(mixer.attention_map(x).flatten(4).flatten(1, 2), shares.transpose(1, 2))


def test_dropout_of_the_whole_map_is_random_in_training_alone():
    mixer, x = layer(LengthScaledAttention2d, attn_drop=0.5), a_map(4, 5)
    assert not torch.equal(mixer.train()(x), mixer(x))
    assert torch.equal(mixer.eval()(x), mixer(x))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kernel_size": (3, 4)}, r"kernel_size must be odd, got \(3, 4\)"),
        ({"kernel_size": 0}, "kernel_size must be an integer of at least 1.*got 0"),
        ({"pool_ratio": 0}, "pool_ratio must be an integer of at least 1.*got 0"),
        ({"pool_size": (2, 0)}, r"pool_size must be .*got \(2, 0\)"),
        ({"pretrain_size": 1.5}, "pretrain_size must be .*got 1.5"),
        ({"attn_drop": 1.0}, "attn_drop must be at least 0 and below 1, got 1.0"),
        ({"proj_drop": float("nan")}, "proj_drop must be at least 0 and below 1, got nan"),
    ],
)
def test_layers_that_are_none(options, told):
    with pytest.raises(InvalidInput, match=told):
        AggregatedAttention2d(6, num_heads=2, **options)
