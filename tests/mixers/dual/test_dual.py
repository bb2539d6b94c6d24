"""Position and channel attention: loops over the equations, golden outputs by a rule, limits and memory."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from qna._core.errors import InvalidInput, UnknownName
from qna.mixers import (
    ChannelAttention2d,
    ChannelAttention3d,
    PositionAttention2d,
    PositionAttention3d,
)
from qna.models import BlockSpec, QnAViT
from tests.mixers.focal.test_modulation import Held, by_rule

POSITION = {2: PositionAttention2d, 3: PositionAttention3d}
CHANNEL = {2: ChannelAttention2d, 3: ChannelAttention3d}


def made_by_rule(kind, dim, **options):
    """A mixer with values by a rule in every parameter, gamma among them."""
    mixer = kind(dim, **options).double()
    with torch.no_grad():
        for phase, parameter in enumerate(mixer.parameters()):
            parameter.copy_(by_rule(parameter.shape, phase + 1))
    return mixer


def positions_one_by_one(mixer, x):
    """The equations, a position at a time."""
    y = torch.empty_like(x)
    rows, out = x.flatten(1, -2), y.view(len(x), -1, x.shape[-1])
    for image, into in zip(rows, out, strict=True):
        for i, own in enumerate(image):
            query = mixer.query(own)
            weights = [math.exp(float(query @ mixer.key(other))) for other in image]
            total = sum(weights)
            summed = sum(w / total * mixer.value(other) for w, other in zip(weights, image, strict=True))
            into[i] = own + mixer.gamma * summed
    return y


def channels_one_by_one(mixer, x):
    """The equations, a pair of channels at a time."""
    sign = -1 if mixer.weigh == "dissimilar" else 1
    y = x.clone()
    for image, into in zip(x.flatten(1, -2), y.view(len(x), -1, x.shape[-1]), strict=True):
        c = image.shape[-1]
        energy = [[float(image[:, i] @ image[:, j]) for j in range(c)] for i in range(c)]
        exp = [[math.exp(sign * e) for e in row] for row in energy]
        for i in range(c):
            for j in range(c):
                # row i of the softmax, entry j
                weight = mixer.gamma * exp[i][j] / sum(exp[i])
                if mixer.sources == "columns":
                    into[:, i] += weight * image[:, j]
                else:
                    into[:, j] += weight * image[:, i]
    return y


@pytest.mark.parametrize("space", [(4, 4), (3, 5), (2, 3, 2), (3, 1, 4)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_positions_equal_a_loop(space, bias):
    mixer = made_by_rule(POSITION[len(space)], 6, reduction=3, bias=bias)
    x = by_rule((2, *space, 6), 0.3)
    expected = positions_one_by_one(mixer, x)
    assert (expected - x).abs().max() > 0.1
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-13 * expected.abs().max().item())


@pytest.mark.parametrize("space", [(4, 4), (3, 5), (2, 3, 2)])
@pytest.mark.parametrize("weigh", ["dissimilar", "similar"])
@pytest.mark.parametrize("sources", ["columns", "rows"])
@torch.no_grad()
def test_channels_equal_a_loop(space, weigh, sources):
    mixer = made_by_rule(CHANNEL[len(space)], 5, weigh=weigh, sources=sources)
    x = by_rule((2, *space, 5), 0.3) * 0.5
    expected = channels_one_by_one(mixer, x)
    assert (expected - x).abs().max() > 0.1
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-13 * expected.abs().max().item())


# of the authors' modules in float64 with the values of `made_by_rule`: of the second map position 7
GOLDEN = {
    "DANet's positions": [-0.8513794403817811, 3.7199277469098257, -2.0281763663964694, -2.2790589021221264],
    "DANet's channels": [-0.0501296813801387, 0.1910757937044442, -0.004170909796245205, -0.191540203315952],
    "DAUNet's positions": [-1.0635614714848443, -1.377091845254936, 2.2902118689863884, -1.0560560569930215],
    "DAUNet's channels": [0.6320984950144068, -0.186937969249496, -0.5702644043270595, 0.34289183311960403],
}
MADE = {
    "DANet's positions": (PositionAttention2d, (4, 5), {}),
    "DANet's channels": (ChannelAttention2d, (4, 5), {}),
    "DAUNet's positions": (PositionAttention3d, (2, 4, 3), {"bias": False}),
    "DAUNet's channels": (ChannelAttention3d, (2, 4, 3), {"weigh": "similar", "sources": "rows"}),
}


@pytest.mark.parametrize("name", GOLDEN)
@torch.no_grad()
def test_golden_outputs_of_the_authors(name):
    kind, space, options = MADE[name]
    y = made_by_rule(kind, 16, **options)(by_rule((2, *space, 16), 0.5) * 0.4)
    expected = torch.tensor(GOLDEN[name], dtype=torch.float64)
    torch.testing.assert_close(y.flatten(1, -2)[1, 7, :4], expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", [*POSITION.values(), *CHANNEL.values()])
@torch.no_grad()
def test_they_begin_as_the_identity(kind):
    x = torch.randn(2, *(3, 4, 5)[: kind.axes], 8)
    assert torch.equal(kind(8)(x), x)


@torch.no_grad()
def test_positions_are_attention_of_scale_one():
    mixer = made_by_rule(PositionAttention2d, 16)
    x = by_rule((2, 5, 7, 16), 0.3)
    q, k, v = (layer(x).flatten(1, 2) for layer in (mixer.query, mixer.key, mixer.value))
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0).view(x.shape)
    torch.testing.assert_close(mixer(x), x + mixer.gamma * dense)


@torch.no_grad()
def test_the_bias_of_keys_changes_nothing():
    mixer, x = made_by_rule(PositionAttention2d, 8), by_rule((1, 4, 5, 8), 0.3)
    before = mixer(x)
    mixer.key.bias.mul_(3)
    torch.testing.assert_close(mixer(x), before)


@torch.no_grad()
def test_a_volume_of_one_slice_is_a_map():
    for kinds in (POSITION, CHANNEL):
        flat, deep = (made_by_rule(kind, 8) for kind in kinds.values())
        x = by_rule((2, 5, 7, 8), 0.3)
        torch.testing.assert_close(deep(x[:, None])[:, 0], flat(x), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_the_authors_largest_less_the_products_is_the_products_turned():
    """softmax(max - E) is softmax(-E), and what is turned twice is softmax(E)."""
    x = by_rule((2, 4, 5, 6), 0.3)
    energy = x.flatten(1, 2).transpose(1, 2) @ x.flatten(1, 2)
    theirs = (energy.max(-1, keepdim=True).values - energy).softmax(-1)
    mixer = made_by_rule(ChannelAttention2d, 6)
    torch.testing.assert_close(mixer.channel_map(x), theirs)
    torch.testing.assert_close(mixer.channel_map(x).sum(-1), torch.ones(2, 6, dtype=torch.float64))
    similar = made_by_rule(ChannelAttention2d, 6, weigh="similar")
    torch.testing.assert_close(similar.channel_map(x), energy.softmax(-1))


@torch.no_grad()
def test_sources_in_rows_and_in_columns_differ():
    x = by_rule((2, 4, 5, 6), 0.3) * 0.4
    columns, rows = (made_by_rule(ChannelAttention2d, 6, sources=s)(x) for s in ("columns", "rows"))
    assert (columns - rows).abs().max() > 1e-2
    # one row of equal weights: of even attention both are the same
    even = torch.zeros_like(x)
    columns, rows = (made_by_rule(ChannelAttention2d, 6, sources=s)(even) for s in ("columns", "rows"))
    assert torch.equal(columns, rows)


@pytest.mark.parametrize("kind", [*POSITION.values(), *CHANNEL.values()])
def test_gradients(kind):
    mixer = made_by_rule(kind, 4)
    x = (by_rule((2, *(2, 3, 2)[: kind.axes], 4), 0.1) * 0.5).requires_grad_()
    names, values = zip(*mixer.named_parameters(), strict=True)

    def call(x, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x, *values), fast_mode=True)


@torch.no_grad()
def test_rows_are_those_of_the_layer():
    mixer, x = made_by_rule(PositionAttention3d, 8), by_rule((2, 2, 3, 4, 8), 0.3)
    rows = mixer.attention_rows(x)
    summed = rows.dense(24) @ mixer.value(x).flatten(1, 3)
    torch.testing.assert_close(mixer(x), x + mixer.gamma * summed.view(x.shape))
    torch.testing.assert_close(mixer.attention_received(x).mean(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("kind", [*POSITION.values(), *CHANNEL.values()])
def test_multiply_adds_are_those_of_the_flop_counter(kind):
    mixer, size = kind(16), (2, *(6, 9, 4)[: kind.axes], 16)
    # torch does not count its fused form on a CPU
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        mixer(torch.randn(size))
    assert counter.get_total_flops() == 2 * mixer.macs(size)


@pytest.mark.parametrize("kind", [*POSITION.values(), *CHANNEL.values()])
@pytest.mark.parametrize("space", [(20, 21), (3, 2)])
@torch.no_grad()
def test_held_is_what_lives_at_the_worst_moment(kind, space):
    mixer = kind(16).double()
    x = torch.randn(2, *(2, *space)[-kind.axes :], 16, dtype=torch.float64)
    with Held(x, *mixer.parameters()) as held:
        mixer(x)
    # sums of the softmax are in single precision or in double
    assert 0.95 * mixer.held(x.shape) <= held.peak <= 1.05 * mixer.held(x.shape)


def test_the_scores_are_never_in_memory():
    """Forward and backward at 4,096 positions, whose scores alone would be 16.8 million elements."""
    mixer = PositionAttention3d(16)
    torch.nn.init.ones_(mixer.gamma)
    x = torch.randn(1, 16, 16, 16, 16, requires_grad=True)
    with Held(x, *mixer.parameters()) as held:
        mixer(x).square().sum().backward()
    n = 4096
    assert held.peak < 20 * n * 16 < n * n / 8


@torch.no_grad()
def test_it_is_any_backbones_mixer():
    for name in ("PositionAttention2d", "ChannelAttention2d"):
        block = BlockSpec(name, {})
        network = QnAViT([[block], [block]], dim=8, pool_heads=1, num_classes=3, img_size=32)
        assert network(torch.randn(2, 3, 33, 30)).shape == (2, 3)


def test_arguments_are_checked():
    with pytest.raises(InvalidInput, match="reduction must be an integer of at least 1, got 0"):
        PositionAttention2d(8, reduction=0)
    with pytest.raises(UnknownName, match="unknown weigh 'similiar'; did you mean 'similar'"):
        ChannelAttention2d(8, weigh="similiar")
    with pytest.raises(UnknownName, match="unknown sources 'row'"):
        ChannelAttention3d(8, sources="row")
