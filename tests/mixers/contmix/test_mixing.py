"""ContMix: its equations by loops, windows and biases at borders, small maps, contexts, precision, costs."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput
from qna.mixers import ContMix2d
from qna.mixers.contmix.kernels import _indexed, _selected, space_of_kernel


def build(seed=0, **arguments):
    """With every tensor far from where it starts, statistics too, in float64."""
    torch.manual_seed(seed)
    mixer = ContMix2d(8, **{"num_heads": 2, "kernel_size": 5, "small_kernel_size": 3, **arguments})
    with torch.no_grad():
        for name, tensor in mixer.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn_like(tensor)
                tensor.add_(0.5 * (noise.abs() if name.endswith("running_var") else noise))
    return mixer.double().eval()


def maps(*sizes):
    return [torch.randn(*size, dtype=torch.float64) for size in sizes]


def normed(layer, x):
    """A linear map and its batch norm in evaluation, from their numbers."""
    norm = layer.norm
    y = (x @ layer.linear.weight.T - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    return y * norm.weight + norm.bias


def starts(n, kernel):
    return [min(max(i - kernel // 2, 0), n - kernel) for i in range(n)]


def mixed_by_loops(mixer, x, query, context):
    """The paper's order: affinities of every position to 49 regions, then kernels, then sums."""
    groups, (batch, height, width, dim) = mixer.groups, x.shape
    pooled = F.adaptive_avg_pool2d(context.movedim(-1, 1), 7).movedim(1, -1)
    keys = normed(mixer.key, pooled).reshape(batch, 49, groups, -1)
    queries = normed(mixer.query, query).unflatten(-1, (groups, -1)) * (dim // groups) ** -0.5
    affinity = torch.einsum("bhwgc,bkgc->bhwgk", queries, keys)
    logits = affinity @ mixer.taps.weight.T + mixer.tap_bias
    value = normed(mixer.value, x).unflatten(-1, (2, groups, -1))
    out = torch.zeros_like(value)
    sizes = (mixer.small_kernel_size, mixer.kernel_size)
    parts = logits.split([k * k for k in sizes], -1)
    for half, (k, logit, table) in enumerate(
        zip(sizes, parts, (mixer.small_rpb, mixer.large_rpb), strict=True)
    ):
        for i, j in product(range(height), range(width)):
            top, left = starts(height, k)[i], starts(width, k)[j]
            bias = table[:, top - i + k - 1 :, left - j + k - 1 :][:, :k, :k]
            kernel = (logit[:, i, j] + bias.flatten(1)).softmax(-1).unflatten(-1, (k, k))
            window = value[:, top : top + k, left : left + k, half]
            out[:, i, j, half] = torch.einsum("bgyx,byxgc->bgc", kernel, window)
    return out.flatten(3)


@torch.no_grad()
@pytest.mark.parametrize("space", [(5, 5), (6, 9)])
def test_mixing_equals_loops_over_the_equations(space):
    mixer = build()
    x, query, context = maps((2, *space, 8), (2, *space, 8), (2, 3, 11, 8))
    # of a context that a kernel fits, as smaller ones are enlarged
    context = F.interpolate(context.movedim(-1, 1), (5, 18), mode="bilinear").movedim(1, -1)
    expected = mixed_by_loops(mixer, x, query, context)
    torch.testing.assert_close(mixer._mix(x, query, context), expected, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_what_stands_around_the_mixing():
    mixer = build()
    (x,) = maps((2, 6, 7, 8))
    mixed = normed(mixer.mixed, mixed_by_loops(mixer, x, x, x))
    norm = mixer.local_norm
    local = (mixer.local(x) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    y = mixed + local * norm.weight + norm.bias
    se = mixer.excite
    hidden = F.gelu(y.mean((1, 2)) @ se.fc1.weight.T + se.fc1.bias)
    y = y * torch.sigmoid(hidden @ se.fc2.weight.T + se.fc2.bias)[:, None, None]
    y = y * F.silu(normed(mixer.gate, x))
    norm = mixer.out_norm
    y = (y - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(mixer(x), y @ mixer.out.weight.T + mixer.out.bias, rtol=1e-10, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("space", [(1, 1), (2, 7), (11, 3), (4, 4)])
def test_a_small_map_is_enlarged_and_averaged_back_as_torch_does(space):
    mixer = build()
    x, query = maps((2, *space, 8), (2, *space, 8))
    size = space_of_kernel(space, 5)
    assert min(size) == 5
    large = [F.interpolate(m.movedim(-1, 1), size, mode="bilinear").movedim(1, -1) for m in (x, query)]
    expected = mixed_by_loops(mixer, *large, large[0])
    expected = F.adaptive_avg_pool2d(expected.movedim(-1, 1), space).movedim(1, -1)
    torch.testing.assert_close(mixer._mix(x, query, x), expected, rtol=1e-10, atol=1e-12)


def test_enlarged_sizes_are_the_authors_but_where_theirs_round():
    differ = []
    for kernel, short, long in product((7, 13), range(1, 13), range(1, 100)):
        if short < kernel and short <= long:
            theirs = (kernel, int(kernel / short * long))
            if space_of_kernel((short, long), kernel) != theirs:
                differ.append((kernel, short, long))
    # in whole numbers, where theirs come out just below and lose a position
    assert differ[0] == (7, 5, 45)
    assert len(differ) == 9
    assert all(kernel * long % short == 0 for kernel, short, long in differ)


@torch.no_grad()
def test_kernels_sum_to_one_so_that_even_values_pass():
    mixer = build(value=False)
    query, context = maps((1, 6, 7, 8), (1, 6, 7, 8))
    for kernel, k in zip(mixer.dynamic_kernels(query, query, context), (3, 5), strict=True):
        assert kernel.shape == (1, 6, 7, 4, k, k)
        torch.testing.assert_close(kernel.sum((-1, -2)), torch.ones(1, 6, 7, 4).double())
    even = torch.ones(1, 6, 7, 8, dtype=torch.float64) * torch.arange(8)
    torch.testing.assert_close(mixer._mix(even, query, context), even, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_without_affinities_kernels_are_the_table_at_real_offsets():
    mixer = build()
    mixer.taps.weight.zero_()
    mixer.tap_bias.zero_()
    (x,) = maps((1, 6, 8, 8))
    large = mixer.dynamic_kernels(x)[1][0]
    for i, j in product(range(6), range(8)):
        keys = [
            (starts(6, 5)[i] + a - i + 4, starts(8, 5)[j] + b - j + 4) for a in range(5) for b in range(5)
        ]
        entries = torch.stack([mixer.large_rpb[:, a, b] for a, b in keys], -1).softmax(-1)
        torch.testing.assert_close(large[i, j].flatten(1), entries, rtol=1e-12, atol=1e-12)


def test_entries_of_a_table_are_the_same_however_they_are_picked():
    """By the way of a GPU on this device too."""
    table = torch.randn(2, 5, 5)
    rows, columns = torch.randint(0, 5, (3, 4)), torch.randint(0, 5, (3, 6))
    expected = torch.stack([table[:, i, j] for i in rows.flatten() for j in columns.flatten()], -1)
    expected = expected.unflatten(-1, (3, 4, 3, 6))
    assert torch.equal(_selected(table, rows, columns), expected)
    assert torch.equal(_indexed(table, rows, columns), expected)


def test_kernels_come_from_the_context_and_values_from_the_map():
    mixer = build(context_dim=6, out_dim=5)
    x, query, context = (m.requires_grad_() for m in maps((2, 5, 6, 8), (2, 5, 6, 8), (2, 9, 4, 6)))
    y = mixer(x, query, context)
    assert y.shape == (2, 5, 6, 5)
    assert all(g.any() for g in torch.autograd.grad(y.square().sum(), (x, query, context)))
    assert torch.autograd.gradcheck(lambda *m: mixer(*m)[:1, :1, :2], (x, query, context), fast_mode=True)


@torch.no_grad()
def test_large_numbers_under_autocast_stay_numbers():
    """Products of queries and keys beyond what fp16 holds."""
    mixer = build().float()
    mixer.query.linear.weight.mul_(300)
    mixer.key.linear.weight.mul_(300)
    x = torch.randn(1, 6, 6, 8)
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype):
            kernels = mixer.dynamic_kernels(x)
            assert all(k.dtype == torch.float32 and k.isfinite().all() for k in kernels)
            assert mixer(x).isfinite().all()


@torch.no_grad()
def test_multiply_adds_are_the_papers():
    """Those of the loops above, counted by hand for one small case."""
    mixer = build(value=False, context_dim=6, out_dim=5)
    n, taps, groups = 2 * 6 * 7, 9 + 25, 4
    around = n * 8 * (8 + 8 + 5) + mixer.local.macs((2, 6, 7, 8)) + 2 * 2 * 8 * 16
    kernels = n * 8 * 4 + 2 * 49 * 6 * 4 + n * groups * 49 * (1 + taps)
    assert mixer.macs((2, 6, 7, 8)) == around + kernels + n * 4 * taps


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"num_heads": 4}, "4 num_heads must divide dim, .* got num_heads=4 and dim=8"),
        ({"small_kernel_size": 7}, "small_kernel_size must be from 1 to kernel_size=5, got 7"),
        ({"kernel_size": 6}, "kernel_size must be one of 3, 5, .*, got 6"),
        ({"context_dim": 0}, "context_dim must be an integer of at least 1, got 0"),
    ],
)
def test_numbers_that_do_not_fit(arguments, told):
    with pytest.raises(InvalidInput, match=told):
        build(**arguments)


def test_maps_that_do_not_fit():
    mixer = build(context_dim=6)
    x, other = maps((1, 5, 6, 8), (1, 5, 5, 8))
    with pytest.raises(InvalidInput, match=r"query must have the shape of x, got \(1, 5, 5, 8\)"):
        mixer(x, other)
    with pytest.raises(InvalidInput, match=r"context must be \(B, H, W, C\) with B = 1 and C = 6, got"):
        mixer(x)
