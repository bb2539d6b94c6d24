"""BiLevelRoutingAttention2d against loops over its definition, and what has to hold of any of them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qna._core.errors import InvalidInput
from qna.mixers import BiLevelRoutingAttention2d, FullAttention2d, WindowAttention2d
from qna.mixers.routing.choose import choose_regions

# divided by 3 x 3 regions, not divided, smaller than the regions, with empty ones, thin
SIZES = [(6, 9), (5, 7), (2, 3), (7, 4), (1, 1), (1, 11)]


def mixer_and_map(size, *, dim=8, heads=2, batch=2, seed=0, **arguments):
    torch.manual_seed(seed)
    options = {"regions": 3, "topk": 2, "lepe_size": 3, **arguments}
    mixer = BiLevelRoutingAttention2d(dim, num_heads=heads, **options).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_()
    return mixer, torch.randn(batch, *size, dim, dtype=torch.float64)


def by_loops(mixer, x):
    """The definition, image by image and region by region, in lists of positions."""
    return torch.stack([_of_image(mixer, image)[0] for image in x])


def _grid(mixer, image):
    """Positions of a region, and regions of the map, per axis."""
    (height, width), S = image.shape[:2], mixer.regions
    if mixer.border == "projected":
        sizes = [max(n // s, 1) for n, s in zip((height, width), S, strict=True)]
        return sizes, [-(-n // size) for n, size in zip((height, width), sizes, strict=True)]
    return [-(-n // s) for n, s in zip((height, width), S, strict=True)], S


def _projected(mixer, image):
    """Queries, keys and values by position, and those of padding where it has some."""
    sizes, counts = _grid(mixer, image)
    of_padding = {"input": mixer.qkv.bias, "projected": torch.zeros(3 * mixer.dim).double()}
    found = {}
    for y in range(counts[0] * sizes[0]):
        for z in range(counts[1] * sizes[1]):
            if y < image.shape[0] and z < image.shape[1]:
                found[y, z] = mixer.qkv(image[y, z])
            elif mixer.border in of_padding:
                found[y, z] = of_padding[mixer.border]
    return found


def _enhanced(mixer, projected, place):
    """LePE at a position."""
    if mixer.lepe is None:
        return 0
    total, reach = mixer.lepe.bias.clone(), mixer.lepe.kernel_size[0] // 2
    for dy in range(-reach, reach + 1):
        for dz in range(-reach, reach + 1):
            near = (place[0] + dy, place[1] + dz)
            if near in projected:
                taps = mixer.lepe.weight[:, 0, dy + reach, dz + reach]
                total = total + taps * projected[near][2 * mixer.dim :]
    return total


def _of_image(mixer, image):
    sizes, _ = _grid(mixer, image)
    projected = _projected(mixer, image)
    inside = [p for p in projected if p[0] < image.shape[0] and p[1] < image.shape[1]]
    members, counted = {}, {}
    for place in projected:
        region = (place[0] // sizes[0], place[1] // sizes[1])
        members.setdefault(region, []).append(place)
        if mixer.border == "input" or place in inside:
            counted.setdefault(region, []).append(place)
    C, heads = mixer.dim, mixer.num_heads
    mean_q = {r: torch.stack([projected[p][:C] for p in counted[r]]).mean(0) for r in counted}
    mean_k = {r: torch.stack([projected[p][C : 2 * C] for p in counted[r]]).mean(0) for r in counted}
    out, routes, shares = image.clone(), {}, {}
    for region in counted:
        order = sorted(mean_k, key=lambda r: -(mean_q[region] @ mean_k[r]).item())
        routes[region] = order[: mixer.topk]
        keys = [p for r in routes[region] for p in members[r]]
        for place in (p for p in members[region] if p in inside):
            parts = []
            for h in range(heads):
                part = slice(h * C // heads, (h + 1) * C // heads)
                q = projected[place][:C][part]
                k = torch.stack([projected[p][C : 2 * C][part] for p in keys])
                v = torch.stack([projected[p][2 * C :][part] for p in keys])
                weights = (k @ q / C**0.5).softmax(0)
                shares[place, h] = dict(zip(keys, weights, strict=True))
                parts.append(weights @ v)
            out[place] = mixer.out(torch.cat(parts) + _enhanced(mixer, projected, place))
    return out, routes, shares


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("border", ["mask", "input", "projected"])
@torch.no_grad()
def test_equals_the_loops(size, border):
    mixer, x = mixer_and_map(size, border=border)
    torch.testing.assert_close(mixer(x), by_loops(mixer, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "arguments", [{"regions": (2, 4)}, {"lepe_size": 0}, {"topk": 9}, {"topk": 1}], ids=str
)
@torch.no_grad()
def test_equals_the_loops_with_other_arguments(arguments):
    mixer, x = mixer_and_map((5, 7), **arguments)
    torch.testing.assert_close(mixer(x), by_loops(mixer, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("border", ["mask", "input", "projected"])
@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
def test_gradients(size, border):
    mixer, x = mixer_and_map(size, dim=4, batch=1, regions=2, border=border)
    names = [n for n, _ in mixer.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), (x,))

    inputs = (x, *mixer.parameters())
    assert torch.autograd.gradcheck(call, [t.detach().requires_grad_() for t in inputs])


def test_gradients_of_gradients():
    mixer, x = mixer_and_map((3, 5), dim=4, batch=1, regions=2)
    assert torch.autograd.gradgradcheck(mixer, (x.requires_grad_(),))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own forward mode uses it
def test_forward_mode_and_batched_derivatives():
    mixer, x = mixer_and_map((5, 7))
    direction = torch.randn_like(x)
    _, derivative = torch.func.jvp(mixer, (x,), (direction,))
    step = 1e-6  # the error of the difference is of the order of its square
    difference = (mixer(x + step * direction) - mixer(x - step * direction)) / (2 * step)
    torch.testing.assert_close(derivative, difference, rtol=1e-6, atol=1e-6)
    mapped = torch.func.vmap(mixer)(torch.stack([x, 2 * x]))
    torch.testing.assert_close(mapped[1], mixer(2 * x))


# what it must be at its limits


def copied(other, mixer):
    """The weights of `mixer` in a layer with the same projections."""
    with torch.no_grad():
        other.qkv.weight.copy_(mixer.qkv.weight)
        other.qkv.bias.copy_(mixer.qkv.bias)
        other.out.weight.copy_(mixer.out.weight)
        other.out.bias.copy_(mixer.out.bias)
        # their scales differ: by a head's channels there
        other.qkv.weight[: mixer.dim] *= mixer.num_heads**-0.5
        other.qkv.bias[: mixer.dim] *= mixer.num_heads**-0.5
    return other


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_all_regions_are_full_attention_by_all_channels(size):
    mixer, x = mixer_and_map(size, topk=9, lepe_size=0)
    full = copied(FullAttention2d(8, num_heads=2, bias=True).double(), mixer)
    torch.testing.assert_close(mixer(x), full(x), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_regions_that_choose_themselves_are_windows():
    mixer, x = mixer_and_map((6, 9), topk=1, lepe_size=0)
    mixer._routes = lambda query, key, inside: torch.arange(query.shape[0] * query.shape[1])[:, None]
    windows = WindowAttention2d(8, num_heads=2, window_size=(2, 3), bias=True).double()
    torch.testing.assert_close(mixer(x), copied(windows, mixer)(x), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_permuted_regions_come_out_permuted():
    mixer, x = mixer_and_map((6, 9), lepe_size=0)
    order = torch.randperm(9)

    def permuted(y):
        tiled = y.unflatten(2, (3, 3)).unflatten(1, (3, 2)).transpose(2, 3).flatten(1, 2)[:, order]
        return tiled.unflatten(1, (3, 3)).transpose(2, 3).flatten(3, 4).flatten(1, 2)

    torch.testing.assert_close(mixer(permuted(x)), permuted(mixer(x)), rtol=1e-10, atol=1e-10)


def test_no_gradient_passes_through_the_choice():
    """Where values are all alike, what is attended is the same whatever the scores."""
    mixer, x = mixer_and_map((6, 9), lepe_size=0)
    with torch.no_grad():
        mixer.qkv.weight[16:] = 0
    mixer(x.requires_grad_()).square().sum().backward()
    # rounding of what cancels: of each of 2 x 54 queries over 12 keys, by as much as reaches the values
    most = torch.finfo(torch.float64).eps * 108 * 12 * mixer.qkv.weight.grad[16:].abs().max()
    assert mixer.qkv.weight.grad[:16].abs().max() < most
    assert x.grad.abs().max() < most


@torch.no_grad()
def test_masked_padding_is_never_seen():
    """Values of the rest change nothing: a map, and the same map as a corner of a larger one."""
    mixer, x = mixer_and_map((5, 7))
    filled = mixer._regions(x.shape).fill_up(x)
    assert filled.shape[1:3] == (6, 9)
    biases = mixer.qkv.bias.clone()
    found = mixer(x)
    assert not torch.equal(found, mixer(filled)[:, :5, :7])
    mixer.border = "input"
    torch.testing.assert_close(mixer(x), mixer(filled)[:, :5, :7])  # zeros are positions like any
    assert torch.equal(biases, mixer.qkv.bias)


# what it shows


@pytest.mark.parametrize("border", ["mask", "input", "projected"])
@pytest.mark.parametrize("size", [(6, 9), (5, 7)])
@torch.no_grad()
def test_maps_and_rows_are_those_of_the_loops(size, border):
    mixer, x = mixer_and_map(size, border=border)
    shown, routes = mixer.attention_map(x), mixer.routes(x)
    rows, received = mixer.attention_rows(x), mixer.attention_received(x)
    n, regions = size[0] * size[1], mixer._regions(x.shape)
    assert shown.shape == (2, *size, 2, 2, regions.rows, regions.columns)
    assert routes.shape == (2, regions.down, regions.across, 2)
    torch.testing.assert_close(shown.flatten(4).sum(-1), torch.ones(2, *size, 2).double())
    for i, image in enumerate(x):
        _, chosen, shares = _of_image(mixer, image)
        for (down, across), theirs in chosen.items():
            assert routes[i, down, across].tolist() == [a * regions.across + b for a, b in theirs]
        expected = torch.zeros(n, n).double()
        for ((y, z), head), of_keys in shares.items():
            found = shown[i, y, z, head]
            for (a, b), share in of_keys.items():
                at = (a // regions.rows, b // regions.columns)
                slot = routes[i, y // regions.rows, z // regions.columns].tolist()
                slot = slot.index(at[0] * regions.across + at[1])
                assert abs(found[slot, a % regions.rows, b % regions.columns] - share) < 1e-12
                if a < size[0] and b < size[1]:
                    expected[y * size[1] + z, a * size[1] + b] += share / 2
        torch.testing.assert_close(rows.dense(n)[i], expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(received[i].flatten(), expected.sum(0), rtol=1e-10, atol=1e-12)


# what it costs


def test_multiply_adds_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    from qna.ops._shared.flops import register_flop_formulas

    register_flop_formulas()
    for size, border in (((6, 9), "mask"), ((5, 7), "input"), ((7, 5), "projected")):
        mixer, x = mixer_and_map(size, border=border)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            mixer(x)
        assert counter.get_total_flops() == 2 * mixer.macs(x.shape)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"topk": 10}, "topk=10 of 3 x 3 regions are not there; 9 is full attention"),
        ({"topk": 0}, "topk must be an integer of at least 1, got 0"),
        ({"regions": 0}, "regions must be an integer of at least 1"),
        ({"lepe_size": 4}, "lepe_size must be odd, or 0 for none, got 4"),
        ({"border": "zero"}, "border 'zero'"),
    ],
)
def test_wrong_arguments_are_named(arguments, told):
    with pytest.raises(InvalidInput, match=told):
        mixer_and_map((3, 3), **arguments)


@pytest.mark.parametrize("border", ["mask", "input", "projected"])
def test_a_map_without_positions(border):
    mixer, x = mixer_and_map((0, 4), border=border)
    with pytest.raises(InvalidInput, match=r"only the batch may be empty, got \(2, 0, 4, 8\)"):
        mixer(x)


@pytest.mark.parametrize("shape", [(8,), (4, 8), (4, 4, 8), (1, 2, 4, 4, 8), (1, 4, 4, 7)])
def test_what_is_no_map_is_named_before_it_is_taken_apart(shape):
    mixer, _ = mixer_and_map((4, 4))
    for asked in (mixer, mixer.routes, mixer.attention_map, mixer.attention_received, mixer.attention_rows):
        with pytest.raises(InvalidInput, match=r"input must be \(B, H, W, C\) with C = 8, got"):
            asked(torch.zeros(shape))


@pytest.mark.filterwarnings("ignore")  # the tracer's own
@torch.no_grad()
def test_traced_for_one_size():
    mixer, x = mixer_and_map((5, 7))
    traced = torch.jit.trace(mixer, x, check_trace=False)
    torch.testing.assert_close(traced(2 * x), mixer(2 * x))


def test_initial_biases_are_zero():
    mixer = BiLevelRoutingAttention2d(8, num_heads=2)
    assert not mixer.qkv.bias.any()
    assert isinstance(mixer.lepe, nn.Conv2d)
    assert F.mse_loss(mixer.qkv.weight.var(), torch.tensor(1 / 8)) < 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_choice_is_not_made_by_rounding(dtype):
    """Of halves it is that of their values, and autocast is not asked."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 64, 50, 8).to(dtype)
    expected = choose_regions(query.double(), key.double(), 32)
    assert torch.equal(choose_regions(query, key, 32), expected)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(choose_regions(query.float(), key.float(), 32), expected)
