"""The reference: against the definition, and the limits in which the op is another."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from qna.ops import neighborhood_attention, neighborhood_av, neighborhood_qk
from qna.ops.neighborhood.cases import BY_NAME, CASES
from qna.ops.neighborhood.geometry import BORDERS, window_axes
from tests.ops.neighborhood import drawn
from tests.ops.neighborhood.definition import Dense, attend_by_loops, attended
from tests.ops.tolerance import assert_close_to_oracle

CHUNK = 100
D = torch.float64


def axes_of(case):
    return window_axes(case.name, case.space, **case.window)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def grads(results, leaves):
    """Of random sums of output and log-sum-exp, where these are finite."""
    total = sum((draw(*t.shape, seed=5) * t.masked_fill(t == -math.inf, 0)).sum() for t in results)
    return torch.autograd.grad(total, leaves)


def leaves_of(case, seed=0):
    return {name: t.requires_grad_(t.is_floating_point()) for name, t in case.make(D, seed=seed).items()}


def assert_equals_dense(case, seed=0):
    tensors = leaves_of(case, seed)
    actual = neighborhood_attention(**tensors, **case.window, return_lse=True, backend="reference")
    expected = Dense(axes_of(case)).attend(**tensors)
    leaves = [t for t in tensors.values() if t.requires_grad]
    pairs = zip(
        ("out", "lse", *(name for name, t in tensors.items() if t.requires_grad)),
        (*actual, *grads(actual, leaves)),
        (*expected, *grads(expected, leaves)),
        strict=True,
    )
    for name, *both in pairs:
        a, e = (t.detach().masked_fill(t == -math.inf, 0) for t in both)
        assert a.shape == e.shape, name
        assert torch.equal(*(t == -math.inf for t in both)), name
        # gradients of bias and extra keys gather one term per query
        terms = case.terms * (1 if name in ("out", "lse", "q", "k", "v") else math.prod(case.space))
        assert_close_to_oracle(a, e, terms=terms, scale=max(1.0, float(e.abs().max())) * 4, name=name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_dense_attention_under_a_mask(case):
    assert_equals_dense(case)


@pytest.mark.parametrize("case", [c for c in CASES if math.prod(c.space) <= 70], ids=lambda case: case.name)
def test_equals_loops_over_the_definition(case):
    tensors = case.make(D)
    actual = neighborhood_attention(**tensors, **case.window, return_lse=True, backend="reference")
    expected = attend_by_loops(**tensors, axes=axes_of(case))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [0, 1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 30))])
def test_random_calls_equal_dense_attention(chunk):
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        assert_equals_dense(drawn.call(seed), seed)


def qkv(*space, heads=2, d=4, batch=2):
    return {name: draw(batch, *space, heads, d, seed=n) for n, name in enumerate("qkv")}


def full(q, k, v, **options):
    """Dense attention of all positions, by torch."""
    flat = [t.flatten(1, -3).transpose(1, 2) for t in (q, k, v)]
    return F.scaled_dot_product_attention(*flat, **options).transpose(1, 2).reshape(v.shape)


@pytest.mark.parametrize("space", [(7,), (4, 6), (3, 2, 4)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_window_of_the_whole_map_is_full_attention(space, stride):
    maps = qkv(*space)
    out = neighborhood_attention(**maps, kernel_size=space, stride=stride)
    torch.testing.assert_close(out, full(**maps))
    torch.testing.assert_close(neighborhood_attention(**maps, kernel_size=space, stride=space), out)


def test_a_causal_window_of_the_whole_line_is_causal_attention():
    maps = qkv(9)
    out = neighborhood_attention(**maps, kernel_size=9, is_causal=True)
    torch.testing.assert_close(out, full(**maps, is_causal=True))


@pytest.mark.parametrize("kernel", [(4,), (3, 5), (2, 3, 4)])
def test_a_stride_of_the_kernel_is_attention_in_a_partition(kernel):
    space = [2 * k for k in kernel]
    maps = qkv(*space)
    out = neighborhood_attention(**maps, kernel_size=kernel, stride=kernel)
    for corner in itertools.product(*(range(0, n, k) for n, k in zip(space, kernel, strict=True))):
        part = (slice(None), *(slice(c, c + k) for c, k in zip(corner, kernel, strict=True)))
        torch.testing.assert_close(out[part], full(*(t[part] for t in maps.values())))


@pytest.mark.parametrize("border", BORDERS)
def test_dilation_is_the_op_on_each_sub_grid(border):
    dilation, window = (2, 3), {"kernel_size": (3, 2), "stride": (2, 1), "border": border}
    maps = {**qkv(11, 10), "bias": draw(2, 5, 3)}
    out = neighborhood_attention(**maps, **window, dilation=dilation)
    for first in itertools.product(*map(range, dilation)):
        part = (slice(None), *(slice(f, None, d) for f, d in zip(first, dilation, strict=True)))
        alone = {name: t if name == "bias" else t[part] for name, t in maps.items()}
        torch.testing.assert_close(out[part], neighborhood_attention(**alone, **window))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_shares_sum_to_one_over_the_taps_of_the_definition(case):
    """Counts, too: as many taps are attended as the product of those along the axes, the query among them."""
    axes, tensors = axes_of(case), case.make(D)
    scores = neighborhood_qk(tensors["q"], tensors["k"], **case.window)
    counts = torch.ones((), dtype=torch.int64)
    for axis in axes:
        counts = counts[..., None] * torch.tensor([len(attended(i, axis)) for i in range(axis.size)])
    seen = scores > -math.inf
    assert torch.equal(seen.sum(-1), counts[None, ..., None].expand(seen.shape[:-1]))
    if all(axis.whole for axis in axes):
        assert (counts == math.prod(case.kernel)).all()
    real = axes[0].border != "zero"
    ones = torch.ones_like(tensors["v"])
    total = neighborhood_av(scores.softmax(-1), ones, **case.window)
    torch.testing.assert_close(total, ones) if real else (total <= 1 + 1e-12).all()


def test_queries_of_a_stride_attend_the_same_keys():
    maps = qkv(13)
    maps["q"] = maps["q"][:, :1].expand(maps["q"].shape)
    out = neighborhood_attention(**maps, kernel_size=6, stride=4)
    for first in range(0, 13, 4):
        group = out[:, first : first + 4]
        torch.testing.assert_close(group, group[:, :1].expand(group.shape))


def test_moves_with_the_map_away_from_its_border():
    maps = qkv(12, 12)
    moved = {name: t.roll((1, 2), (1, 2)) for name, t in maps.items()}
    window = {"kernel_size": 5}
    out, after = (neighborhood_attention(**m, **window) for m in (maps, moved))
    torch.testing.assert_close(after[:, 4:-3, 4:-3], out.roll((1, 2), (1, 2))[:, 4:-3, 4:-3])


def test_a_constant_value_passes_unchanged():
    maps = qkv(6, 7)
    maps["v"] = torch.full_like(maps["v"], 3.0)
    torch.testing.assert_close(neighborhood_attention(**maps, kernel_size=(3, 4)), maps["v"])


def test_parts_of_the_keys_merge_by_their_log_sum_exp():
    """Extra keys alone and the window alone, put together, are the op of both."""
    maps, extra = (
        qkv(6, 5),
        {"extra_keys": draw(2, 70, 2, 4, seed=7), "extra_values": draw(2, 70, 2, 4, seed=8)},
    )
    (a, la), (b, lb) = (
        neighborhood_attention(**maps, **more, kernel_size=3, return_lse=True)
        for more in ({}, {**extra, "key_mask": torch.zeros(2, 6, 5, dtype=torch.bool)})
    )
    both, lse = neighborhood_attention(**maps, **extra, kernel_size=3, return_lse=True)
    torch.testing.assert_close(lse, torch.logaddexp(la, lb))
    torch.testing.assert_close(both, (la - lse).exp()[..., None] * a + (lb - lse).exp()[..., None] * b)


@pytest.mark.parametrize("case", [c for c in CASES if not c.extra], ids=lambda case: case.name)
def test_the_halves_are_the_op(case):
    tensors = leaves_of(case)
    v = tensors.pop("v")
    scores = neighborhood_qk(**tensors, **case.window)
    empty = (scores == -math.inf).all(-1, keepdim=True)
    shares = scores.masked_fill(empty, 0).softmax(-1)
    halves = neighborhood_av(shares.masked_fill(empty, 0), v, **case.window)
    out = neighborhood_attention(**tensors, v=v, **case.window)
    torch.testing.assert_close(halves, out)
    leaves = [t for t in (v, *tensors.values()) if t.requires_grad]
    torch.testing.assert_close(grads([halves], leaves), grads([out], leaves))


def test_weights_of_taps_that_are_not_attended_are_ignored():
    case = BY_NAME["2d-causal-rows"]
    v, scores = case.make(D)["v"], neighborhood_qk(*(case.make(D)[n] for n in "qk"), **case.window)
    weights = draw(*scores.shape)
    anything = weights.masked_fill(scores == -math.inf, math.nan).requires_grad_()
    out = neighborhood_av(anything, v, **case.window)
    torch.testing.assert_close(out, neighborhood_av(weights, v, **case.window))
    (grad,) = torch.autograd.grad(out.sum(), anything)
    assert (grad[scores == -math.inf] == 0).all()


@pytest.mark.parametrize("name", ["k", "v"])
def test_what_is_not_attended_may_be_nan(name):
    case = replace(BY_NAME["2d-3x3"], extra=0)
    tensors = leaves_of(case)
    spoiled = {**tensors, name: tensors[name].masked_fill(~tensors["key_mask"][..., None, None], math.nan)}
    clean, out = (neighborhood_attention(**t, **case.window) for t in (tensors, spoiled))
    assert torch.equal(out, clean)
    leaves = [tensors[n] for n in ("q", "k", "v", "bias")]
    assert all(map(torch.equal, grads([out], leaves), grads([clean], leaves)))


def test_a_query_that_attends_nothing_gives_zero_and_no_gradient():
    tensors = leaves_of(BY_NAME["1d"])
    mask = torch.zeros(2, 9, dtype=torch.bool)
    out, lse = neighborhood_attention(**tensors, key_mask=mask, kernel_size=3, return_lse=True)
    assert (out == 0).all()
    assert (lse == -math.inf).all()
    assert all((g == 0).all() for g in grads([out, lse], list(tensors.values())))


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_scores_of_any_size(size):
    case = BY_NAME["2d-even"]
    tensors = case.make(D)
    tensors["q"] = tensors["q"] * size
    out, lse = neighborhood_attention(**tensors, **case.window, return_lse=True)
    expected, of_dense = Dense(axes_of(case)).attend(**tensors)
    torch.testing.assert_close((out, lse), (expected, of_dense), rtol=1e-9, atol=1e-9)


SMALL = replace(
    BY_NAME["2d-3x3"],
    space=(2, 3),
    kernel=(2, 3),
    batch=1,
    heads=1,
    head_dim=2,
    options={"is_causal": (True, False)},
)


def test_first_and_second_derivatives_by_differences():
    tensors = leaves_of(SMALL)
    mask = tensors.pop("key_mask")

    def attend(*leaves):
        named = dict(zip(tensors, leaves, strict=True))
        return neighborhood_attention(
            **named, key_mask=mask, **SMALL.window, return_lse=True, backend="reference"
        )

    assert torch.autograd.gradcheck(attend, tuple(tensors.values()))
    assert torch.autograd.gradgradcheck(attend, tuple(tensors.values()))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own, on the first tangent
def test_transforms_and_tangents_pass_through():
    tensors = SMALL.make(D)
    q = tensors.pop("q")

    def attend(q):
        return neighborhood_attention(q, **tensors, **SMALL.window)

    jacobian = torch.func.jacrev(attend)(q)
    step = draw(*q.shape, seed=3)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(attend(forward_ad.make_dual(q, step))).tangent
    torch.testing.assert_close(tangent, torch.einsum("...bxyhd,bxyhd->...", jacobian, step))
    several = torch.stack([q, step])
    torch.testing.assert_close(torch.func.vmap(attend)(several), torch.stack(list(map(attend, several))))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype):
    case = BY_NAME["2d-wide-heads"]
    tensors = {name: t.to(dtype) for name, t in case.make().items()}
    out, lse = neighborhood_attention(**tensors, **case.window, return_lse=True)
    wide = neighborhood_attention(**{name: t.float() for name, t in tensors.items()}, **case.window)
    assert torch.equal(out, wide.to(dtype))
    assert lse.dtype == torch.float32


def test_an_empty_batch_is_one():
    maps = qkv(5, batch=0)
    assert neighborhood_attention(**maps, kernel_size=3).shape == (0, 5, 2, 4)


def test_meta_tensors_have_shapes():
    case = BY_NAME["2d-3x3"]
    tensors = {name: t.to("meta") for name, t in case.make().items()}
    out, lse = neighborhood_attention(**tensors, **case.window, return_lse=True)
    assert out.shape == (2, 7, 9, 3, 5)
    assert lse.shape == (2, 7, 9, 3)
