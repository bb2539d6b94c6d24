"""Linear attention: the sums of all pairs by their definition, what the clamp does, cost, half precision."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from qna._core.errors import InvalidInput
from qna.analysis.cost import total_macs
from qna.mixers import FullAttention2d, LinearAttention2d


def made(dim=8, seed=0, **options):
    """A mixer with values in every tensor, in double precision."""
    torch.manual_seed(seed)
    mixer = LinearAttention2d(dim, **{"num_heads": 2, **options}).double()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.6)
    return mixer


def a_map(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def scores_first(mixer, x):
    """The equation written out: the scores of all pairs, then the values."""
    n, d = x.shape[1] * x.shape[2], mixer.dim // mixer.num_heads
    q, k, v = (t.reshape(len(x), n, mixer.num_heads, d).transpose(1, 2) for t in mixer.qkv(x).chunk(3, -1))
    scores = torch.einsum("bhid,bhjd->bhij", q.clamp(min=0), k.clamp(min=0))
    met = scores.sum(-1, keepdim=True)
    bounded = torch.maximum(met, torch.tensor(mixer.clamp).double())
    weights = torch.where(met > 0, scores / bounded.clamp(min=1e-300), 0) * mixer.temperature
    attended = torch.einsum("bhij,bhjd->bhid", weights, v)
    return mixer.out(attended.transpose(1, 2).reshape(x.shape)), weights


def test_the_least_denominator_is_the_authors():
    assert LinearAttention2d(8, num_heads=2).clamp == 100


@pytest.mark.parametrize("clamp", [0.0, 3.0, 40.0, 1e4])
@pytest.mark.parametrize("space", [(5, 7), (1, 1), (9, 2)])
def test_keys_and_values_first_is_scores_first(clamp, space):
    mixer, x = made(clamp=clamp), a_map(2, *space, 8)
    torch.testing.assert_close(mixer(x), scores_first(mixer, x)[0], rtol=1e-10, atol=1e-12)


def test_some_denominators_are_clamped_and_some_are_not():
    """Of the test above, at 40: both sides of the bound are tried."""
    mixer, x = made(clamp=40.0), a_map(2, 5, 7, 8)
    met = scores_first(mixer, x)[1].sum(-1) / mixer.temperature.squeeze(-1)
    assert (met > 1 - 1e-9).any()
    assert (met < 1 - 1e-9).any()


def test_without_a_clamp_rows_sum_to_tau():
    mixer, x = made(clamp=0.0), a_map(2, 4, 6, 8)
    with torch.no_grad():
        # values of one, and nothing else on the way out
        mixer.qkv.weight[16:], mixer.qkv.bias[16:] = 0, 1
        mixer.qkv.bias[:16] = 50.0  # queries and keys are then positive
        mixer.out.weight.copy_(torch.eye(8))
        nn.init.zeros_(mixer.out.bias)
    tau = mixer.temperature.flatten().repeat_interleave(4)
    torch.testing.assert_close(mixer(x), tau.expand(2, 4, 6, 8), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("clamp", [0.0, 100.0])
def test_a_query_that_meets_no_key_gets_nothing(clamp):
    mixer, x = made(clamp=clamp), a_map(1, 3, 4, 8).requires_grad_()
    with torch.no_grad():
        mixer.qkv.bias[8:16] = -1e3
    y = mixer(x)
    torch.testing.assert_close(y, mixer.out.bias.expand_as(y), rtol=0, atol=0)
    y.sum().backward()
    assert all(t.grad.isfinite().all() for t in (x, *mixer.parameters()))


def test_below_the_clamp_it_is_a_sum_and_no_mean():
    """A small map far below 100: twice the positions give twice the output."""
    mixer = made(clamp=100.0)
    with torch.no_grad():
        mixer.qkv.weight[:16] *= 0.1
        mixer.qkv.bias[:16] *= 0.1
        nn.init.zeros_(mixer.out.bias)
    x = a_map(1, 2, 3, 8)
    twice = mixer(torch.cat([x, x], 1))
    torch.testing.assert_close(twice[:, :2], 2 * mixer(x), rtol=1e-10, atol=1e-12)
    mixer.clamp = 0.0
    twice = mixer(torch.cat([x, x], 1))
    torch.testing.assert_close(twice[:, :2], mixer(x), rtol=1e-10, atol=1e-12)


def test_positions_in_another_order_give_the_same_in_that_order():
    mixer, x = made(), a_map(2, 5, 7, 8)
    order = torch.randperm(35)
    shuffled = x.flatten(1, 2)[:, order].view_as(x)
    expected = mixer(x).flatten(1, 2)[:, order].view_as(x)
    torch.testing.assert_close(mixer(shuffled), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("clamp", [0.0, 20.0])
def test_gradients(clamp):
    mixer, x = made(dim=4, clamp=clamp), a_map(1, 3, 3, 4).requires_grad_()
    assert gradcheck(mixer, (x,))
    tau = mixer.temperature
    assert gradcheck(
        lambda t: torch.func.functional_call(mixer, {"temperature": t}, (x,)),
        (tau.detach().requires_grad_(),),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_sums_above_what_halves_hold(dtype):
    """Keys times values over a map: beyond fp16, and in bf16 a sum of ones would stop growing at 256."""
    mixer = made(dim=16, clamp=100.0)
    x = a_map(1, 64, 64, 16)
    mixer.qkv.bias += 4
    key, value = mixer.qkv(x)[..., 16:].relu().flatten(1, 2).chunk(2, -1)
    assert (key.transpose(1, 2) @ value).max() > 65504 > 2 * value.max() ** 2
    rounded = mixer.to(dtype)
    expected = made(dim=16).load_state_dict(rounded.state_dict()) and rounded.double()(x.to(dtype).double())
    y = rounded.to(dtype)(x.to(dtype))
    assert y.isfinite().all()
    # two linear maps of 16 terms, and what lies between them, each rounded to the dtype
    assert (y.double() - expected).abs().max() <= 16 * torch.finfo(dtype).eps * expected.abs().max()


def test_autocast_leaves_the_sums_alone():
    mixer, x = made(dim=16).float(), a_map(1, 64, 64, 16).float()
    with torch.no_grad():
        mixer.qkv.bias += 4
    products = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.bmm.default:
                products.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16), Watch():
        y = mixer(x)
    assert products == [torch.float32] * 3
    assert y.isfinite().all()


def test_shares_are_those_of_the_definition():
    mixer, x = made(clamp=0.0), a_map(2, 3, 5, 8)
    weights = scores_first(mixer, x)[1] / mixer.temperature
    even = weights.sum(-1, keepdim=True) == 0
    expected = torch.where(even, 1 / 15, weights).transpose(1, 2).reshape(2, 3, 5, 2, 3, 5)
    torch.testing.assert_close(mixer.attention_map(x), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mixer.attention_rows(x).shares.sum(-1), torch.ones(2, 15).double())
    torch.testing.assert_close(mixer.attention_received(x).mean((1, 2)), torch.ones(2).double())


def test_cost_grows_with_the_map_where_full_attention_grows_with_its_square():
    mixer, full = made(dim=32), FullAttention2d(32, num_heads=2)
    assert total_macs(mixer, (1, 10, 12, 32)) == 120 * 32 * (4 * 32 + 2 * 16 + 1)
    for tell in ("macs", "held"):
        small, large = (getattr(mixer, tell)((1, side, side, 32)) for side in (32, 320))
        assert 90 < large / small <= 100
    small, large = (full.macs((1, side, side, 32)) for side in (32, 320))
    assert large / small > 5000


@torch.no_grad()
def test_no_tensor_of_a_call_grows_with_the_square_of_the_map():
    mixer, x = made(dim=8).float(), torch.randn(1, 48, 64, 8)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Watch():
        mixer(x)
    assert largest == 3 * x.numel()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"clamp": -1.0}, r"LinearAttention2d: clamp must be at least 0 and finite, got -1\.0"),
        ({"clamp": float("inf")}, "clamp must be at least 0 and finite, got inf"),
        ({"clamp": float("nan")}, "clamp must be at least 0 and finite, got nan"),
        ({"clamp": None}, "clamp must be at least 0 and finite, got None"),
        ({"clamp": True}, "clamp must be at least 0 and finite, got True"),
        ({"num_heads": 3}, "num_heads must divide dim, got num_heads=3 and dim=8"),
    ],
)
def test_what_is_refused(options, told):
    with pytest.raises(InvalidInput, match=told):
        LinearAttention2d(8, **{"num_heads": 2, **options})
