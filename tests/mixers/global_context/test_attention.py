"""Global-query attention: its definition written as a loop, its limits, its query generator, refusals."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qna._core.errors import InvalidInput
from qna.mixers import FullAttention2d, GlobalContextAttention2d
from qna.mixers.global_context import GlobalQuery
from qna.parts.depthwise_residual import DepthwiseResidual
from qna.parts.resize import cubic_matrix
from tests.mixers.contract import randomise


def layer(dim=6, num_heads=2, window_size=3, halvings=None, **options):
    mixer = GlobalContextAttention2d(
        dim, num_heads=num_heads, window_size=window_size, halvings=halvings, **options
    ).double()
    randomise(mixer)
    return mixer


def a_map(*space, batch=2, dim=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *space, dim, generator=g, dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def by_definition(mixer, x, g):
    """One position at a time: (output, softmax by (image, i, j)); g has the size of a window."""
    (rows, columns), h, y, maps = mixer.window_size, mixer.num_heads, torch.zeros_like(x), {}
    for b, i, j in product(*map(range, x.shape[:3])):
        top, left = i // rows * rows, j // columns * columns
        places = [
            (u, v)
            for u in range(top, min(top + rows, x.shape[1]))
            for v in range(left, min(left + columns, x.shape[2]))
        ]
        k, v = mixer.kv(torch.stack([x[b, u, v] for u, v in places])).unflatten(-1, (2, h, -1)).unbind(1)
        q = g[b, i - top, j - left].unflatten(-1, (h, -1))
        bias = torch.stack([mixer.position_table[i - u + rows - 1, j - v + columns - 1] for u, v in places])
        shares = (torch.einsum("hd,nhd->nh", q, k) / math.sqrt(q.shape[-1]) + bias).softmax(0)
        maps[b, i, j] = shares
        y[b, i, j] = mixer.out(torch.einsum("nh,nhd->hd", shares, v).flatten())
    return y, maps


CASES = [((6, 9), 3), ((5, 7), (2, 3)), ((4, 4), (4, 2)), ((3, 8), 3)]


@pytest.mark.parametrize(("space", "window"), CASES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_gradients", [False, True])
def test_it_is_its_definition(space, window, bias, with_gradients):
    mixer, x = layer(window_size=window, bias=bias), a_map(*space)
    g = a_map(*mixer.window_size, seed=1)
    with torch.no_grad():
        expected, maps = by_definition(mixer, x, g)
    with torch.set_grad_enabled(with_gradients):
        close(mixer(x, g), expected)
    with torch.no_grad():
        shares = mixer.attention_map(x, g)
        for (b, i, j), found in maps.items():
            close(shares[b, i, j].flatten(1).sum(1), torch.ones(2, dtype=torch.float64))
            kept = shares[b, i, j].flatten(1).T
            close(kept[kept.sum(1) > 0], found)
        received = mixer.attention_received(x, g)
        close(received.sum(), torch.tensor(float(math.prod(x.shape[:3])), dtype=torch.float64))


@torch.no_grad()
def test_alone_it_asks_with_the_query_of_its_input():
    mixer, x = layer(halvings=1), a_map(6, 6)
    given = layer(halvings=None)
    given.load_state_dict({n: t for n, t in mixer.state_dict().items() if not n.startswith("global_query")})
    query = mixer.global_query(x)
    assert query.shape == (2, 3, 3, 6)
    close(mixer(x), given(x, query))


@torch.no_grad()
def test_one_window_with_queries_of_the_map_is_full_attention():
    full, mixer, x = FullAttention2d(6, num_heads=2).double(), layer(window_size=(4, 5)), a_map(4, 5)
    randomise(full)
    mixer.position_table.zero_()
    query, rest = full.qkv.weight.split((6, 12))
    mixer.kv.weight.copy_(rest)
    mixer.kv.bias.zero_()
    mixer.out.load_state_dict({"weight": full.out.weight, "bias": torch.zeros(6)})
    if full.out.bias is not None:
        mixer.out.bias.copy_(full.out.bias)
    close(mixer(x, x @ query.T), full(x))


@torch.no_grad()
def test_windows_that_are_alike_give_the_same():
    """All windows of an image ask alike: what differs between windows is their keys and values."""
    mixer, tile, g = layer(), a_map(3, 3), a_map(3, 3, seed=1)
    y = mixer(tile.repeat(1, 3, 2, 1), g)
    close(y, mixer(tile, g).repeat(1, 3, 2, 1))
    # and windows that change places take what they gave along
    x = a_map(6, 6, seed=2)
    close(mixer(x.roll(3, 1), g), mixer(x, g).roll(3, 1))


@torch.no_grad()
def test_images_that_change_places_take_their_query_along():
    """Not so where copies of the queries of images alternate while their windows follow each other."""
    mixer, x, g = layer(), a_map(6, 9, batch=3), a_map(3, 3, batch=3, seed=1)
    order = [2, 0, 1]
    close(mixer(x[order], g[order]), mixer(x, g)[order])
    close(mixer(x, g)[1:2], mixer(x[1:2], g[1:2]))
    assert (mixer(x, g[order]) - mixer(x, g)).abs().max() > 0.1


@torch.no_grad()
def test_what_fills_up_a_map_is_no_key():
    """A map and its first rows alone agree where a window ends between them."""
    mixer, x, g = layer(), a_map(5, 8), a_map(3, 3, seed=1)
    close(mixer(x[:, :3], g), mixer(x, g)[:, :3])


@torch.no_grad()
def test_a_query_of_another_size_is_resampled():
    mixer, x, g = layer(window_size=(3, 4)), a_map(6, 8), a_map(5, 2, seed=1)
    rows, columns = cubic_matrix(3, 5, g), cubic_matrix(4, 2, g)
    close(mixer(x, g), mixer(x, torch.einsum("yh,xw,bhwc->byxc", rows, columns, g)))
    # one vector is the query of every place
    close(mixer(x, g[:, :1, :1]), mixer(x, g[:, :1, :1].expand(-1, 3, 4, -1)))


@torch.no_grad()
def test_a_map_smaller_than_a_window_asks_of_all_the_query():
    mixer, x, g = layer(window_size=(4, 3)), a_map(2, 3), a_map(4, 3, seed=1)
    small = layer(window_size=(2, 3))
    small.load_state_dict({**mixer.state_dict(), "position_table": mixer.position_table[2:5]})
    close(mixer(x, g), small(x, g))


def test_gradients():
    mixer, x, g = (
        layer(dim=4, window_size=2),
        a_map(3, 2, dim=4, batch=1),
        a_map(2, 2, dim=4, batch=1, seed=1),
    )
    parameters = [p.detach().requires_grad_() for p in mixer.parameters()]
    names = [n for n, _ in mixer.named_parameters()]

    def call(x, g, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), (x, g))

    assert torch.autograd.gradcheck(call, (x.requires_grad_(), g.requires_grad_(), *parameters))


def test_multiply_adds_and_parameters():
    C, n, K = 8, 6 * 9, 9
    mixer = GlobalContextAttention2d(C, num_heads=2, window_size=3, halvings=None)
    assert mixer.macs((2, 6, 9, C)) == 2 * (3 * n * C**2 + 2 * n * K * C)
    # 4 windows by 3 where the map is filled up
    assert mixer.macs((1, 10, 7, C)) == 3 * 70 * C**2 + 2 * (12 * 9) * K * C
    own = GlobalContextAttention2d(C, num_heads=2, window_size=3, halvings=2)
    residual = [9 * m * C + m * C**2 + 2 * C * (C // 4) for m in (54, 3 * 5)]
    assert own.macs((1, 6, 9, C)) == mixer.macs((1, 6, 9, C)) + sum(residual)
    parameters = sum(p.numel() for p in mixer.parameters())
    assert parameters == 2 * C * C + 2 * C + C * C + C + 25 * 2


# the query generator


@torch.no_grad()
def test_the_light_residual_is_its_formula():
    torch.manual_seed(0)
    residual, x = DepthwiseResidual(8).double(), a_map(4, 5, dim=8)
    assert not [n for n, _ in residual.named_parameters() if n.endswith("bias")]
    conv = F.conv2d(x.permute(0, 3, 1, 2), residual.conv.weight, padding=1, groups=8)
    inner = F.gelu(conv).permute(0, 2, 3, 1)
    weigh = F.gelu(inner.mean((1, 2)) @ residual.excite.fc1.weight.T) @ residual.excite.fc2.weight.T
    close(residual(x), x + (inner * weigh.sigmoid()[:, None, None]) @ residual.linear.weight.T)
    assert residual.excite.fc1.out_features == 2


@pytest.mark.parametrize("halvings", [0, 1, 2])
@torch.no_grad()
def test_halvings_take_maxima_of_residuals(halvings):
    torch.manual_seed(0)
    generator, x = GlobalQuery(8, halvings).double(), a_map(5, 8, dim=8)
    residuals = [m for m in generator if isinstance(m, DepthwiseResidual)]
    assert len(residuals) == max(1, halvings)
    y = x
    for residual in residuals:
        y = residual(y)
        if halvings:
            padded = nn.functional.pad(y.permute(0, 3, 1, 2), (1, 2, 1, 2), value=-math.inf)
            rows, columns = (-(-n // 2) for n in y.shape[1:3])
            y = torch.stack(
                [
                    padded[..., 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].amax((2, 3))
                    for i in range(rows)
                    for j in range(columns)
                ],
                1,
            ).unflatten(1, (rows, columns))
    close(generator(x), y)
    assert tuple(y.shape) == generator.out_size(x.shape)


# what is refused


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: layer(halvings=0)(a_map(3, 3), a_map(3, 3)), "build it with halvings=None to give it one"),
        (lambda: layer()(a_map(3, 3)), r"must be given a query, \(B, h, w, 6\)"),
        (lambda: layer()(a_map(3, 3), a_map(3, 3, batch=1)), "a query for each of 2 images, got 1"),
        (lambda: layer()(a_map(3, 3), a_map(3, 3, dim=4)), r"query: input must be .*got \(2, 3, 3, 4\)"),
        (lambda: layer(halvings=-1), "halvings must be an integer of at least 0, got -1"),
        (lambda: layer(num_heads=4), "num_heads"),
        (lambda: layer(window_size=0), "window_size"),
    ],
)
def test_what_is_refused(call, told):
    with pytest.raises(InvalidInput, match=told) as raised:
        call()
    assert "\n" not in str(raised.value)
