"""Neighbourhood attention as a layer: its limits, maps smaller than a window, what it shows of its attention.

The windows themselves are held to their definition in tests/ops/neighborhood.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qna._core.errors import InvalidInput
from qna.mixers import NeighborhoodAttention1d, NeighborhoodAttention2d, NeighborhoodAttention3d
from qna.mixers.neighborhood import attention
from qna.models import QnAViT
from tests.mixers.contract import randomise

CLASSES = (NeighborhoodAttention1d, NeighborhoodAttention2d, NeighborhoodAttention3d)


def layer(axes=2, *, kernel_size, dim=6, num_heads=2, **options):
    mixer = CLASSES[axes - 1](dim, num_heads=num_heads, kernel_size=kernel_size, **options).double()
    randomise(mixer)
    return mixer


def a_map(*space, batch=2, dim=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *space, dim, generator=g, dtype=torch.float64)


def full_attention(mixer, x, mask=None):
    """Every position of a row of them attends all, with the layer's weights."""
    q, k, v = mixer.qkv(x).unflatten(-1, (3, mixer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=mixer.scale)
    return mixer.proj(attended.transpose(1, 2).flatten(2))


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# where it becomes something simple


@torch.no_grad()
def test_a_window_as_large_as_the_map_is_full_attention():
    for space in ((5,), (3, 4), (2, 3, 2)):
        mixer, x = layer(len(space), kernel_size=space, rel_pos_bias=False), a_map(*space)
        close(mixer(x).flatten(1, -2), full_attention(mixer, x.flatten(1, -2)))


@torch.no_grad()
def test_the_table_is_read_by_the_offset_from_query_to_key():
    mixer, x = layer(1, kernel_size=5), a_map(5)
    place = torch.arange(5)
    bias = mixer.rpb[:, place - place[:, None] + 4]
    close(mixer(x), full_attention(mixer, x, bias))


@torch.no_grad()
def test_a_causal_window_as_long_as_the_sequence_is_causal_attention():
    mixer, x = layer(1, kernel_size=7, is_causal=True, rel_pos_bias=False), a_map(7)
    close(mixer(x), full_attention(mixer, x, torch.ones(7, 7, dtype=torch.bool).tril()))


@torch.no_grad()
def test_a_window_of_one_tap_is_two_linear_maps():
    mixer, x = layer(kernel_size=1), a_map(4, 5)
    close(mixer(x), mixer.proj(mixer.qkv(x)[..., 12:]))


@torch.no_grad()
def test_a_stride_as_long_as_the_window_attends_blocks():
    mixer, x = layer(kernel_size=(2, 3), stride=(2, 3), rel_pos_bias=False), a_map(4, 9)
    blocks = x.unflatten(2, (3, 3)).unflatten(1, (2, 2)).transpose(2, 3)
    alone = full_attention(mixer, blocks.flatten(3, 4).flatten(0, 2))
    close(mixer(x), alone.unflatten(0, (2, 2, 3)).unflatten(3, (2, 3)).transpose(2, 3).reshape(x.shape))


@torch.no_grad()
def test_a_dilation_is_the_same_on_grids_that_know_nothing_of_each_other():
    dilated, plain, x = layer(kernel_size=3, dilation=(2, 3)), layer(kernel_size=3), a_map(7, 10)
    plain.load_state_dict(dilated.state_dict())
    y = dilated(x)
    for i in range(2):
        for j in range(3):
            close(y[:, i::2, j::3], plain(x[:, i::2, j::3]))


@torch.no_grad()
def test_away_from_the_border_it_moves_with_the_map():
    mixer, x = layer(kernel_size=3, dilation=2), a_map(14, 15)
    y, moved = mixer(x), mixer(x.roll((1, 2), (1, 2)))
    close(moved[:, 5:-4, 6:-4], y[:, 4:-5, 4:-6])
    assert (moved - y.roll((1, 2), (1, 2))).abs().max() > 1e-2


@torch.no_grad()
def test_causal_axes_see_no_later_position():
    """Time is causal and space is not; also where the clip is shorter than a window."""
    mixer = layer(3, kernel_size=(3, 3, 2), is_causal=(True, False, False), dilation=(2, 1, 1))
    for frames in (8, 4):
        x = a_map(frames, 4, 4)
        changed = x.clone()
        changed[:, 3:] += 1
        before, after = mixer(x), mixer(changed)
        assert torch.equal(after[:, :3], before[:, :3])
        assert ((after - before)[:, 3].abs().amax(-1) > 1e-6).all()


@torch.no_grad()
def test_scale():
    mixer, x = layer(1, kernel_size=3, qk_scale=0, rel_pos_bias=False), a_map(3)
    value = mixer.qkv(x)[..., 12:]
    close(mixer(x), mixer.proj(value.mean(1, keepdim=True).expand_as(value)))
    assert layer(kernel_size=3, dim=8).scale == 0.5


def test_gradients():
    for options in ({"dilation": (1, 2)}, {"is_causal": (True, False), "stride": (2, 1)}):
        mixer = layer(kernel_size=(2, 3), dim=2, num_heads=1, **options)
        x = a_map(2, 5, batch=1, dim=2).requires_grad_()
        parameters = dict(mixer.named_parameters())

        def call(x, *values, mixer=mixer, names=tuple(parameters)):
            return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), x)

        assert torch.autograd.gradcheck(call, (x, *parameters.values()))


# maps that are smaller than a window


@pytest.mark.parametrize(
    ("space", "options", "filled"),
    [
        ((3,), {"kernel_size": 5}, (5,)),
        ((2, 9), {"kernel_size": 3}, (3, 9)),
        ((5, 3), {"kernel_size": (3, 2), "dilation": (2, 3)}, (6, 6)),
        ((1, 1), {"kernel_size": 7, "stride": 3}, (7, 7)),
        ((4, 1, 2), {"kernel_size": 3, "dilation": (1, 2, 1)}, (4, 6, 3)),
    ],
    ids=str,
)
@torch.no_grad()
def test_a_small_map_is_filled_up_with_zeros_behind_its_end(space, options, filled):
    """Before the projection, so that the zeros have keys and values: their biases."""
    mixer, x = layer(len(space), **options), a_map(*space)
    larger = x.new_zeros(2, *filled, 6)
    inside = (slice(None), *(slice(n) for n in space))
    larger[inside] = x
    y = mixer(x)
    close(y, mixer(larger)[inside])
    assert mixer.macs(x.shape) == mixer.macs(larger.shape) - 2 * (math.prod(filled) - math.prod(space)) * 36
    assert mixer.held(x.shape) == mixer.held(larger.shape)
    # the zeros take their share
    larger.fill_(5)[inside] = x
    assert not torch.allclose(mixer(larger)[inside], y)


@pytest.mark.parametrize("border", ["mask", "zero"])
@torch.no_grad()
def test_other_borders_fill_nothing_up(border):
    mixer, x = layer(kernel_size=7, border=border, rel_pos_bias=False), a_map(2, 3)
    flat = x.flatten(1, 2)
    if border == "mask":
        close(mixer(x).flatten(1, 2), full_attention(mixer, flat))
    else:
        # 43 keys and values of zeros beside the map's six
        q, k, v = mixer.qkv(flat).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        k, v = (F.pad(t, (0, 0, 0, 43)) for t in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v, scale=mixer.scale).transpose(1, 2).flatten(2)
        close(mixer(x).flatten(1, 2), mixer.proj(attended))
    shape = (2, 2, 3, 6)
    assert mixer.macs(shape) == 2 * (6 * 4 * 36 + 2 * 36 * 6)


# what it shows


@pytest.mark.parametrize(
    ("axes", "space", "options"),
    [
        (1, (9,), {"kernel_size": 4, "is_causal": True, "stride": 2}),
        (2, (5, 7), {"kernel_size": (3, 2), "dilation": (1, 3)}),
        (2, (4, 5), {"kernel_size": 5, "border": "mask"}),
        (3, (3, 4, 5), {"kernel_size": (1, 3, 4), "stride": (1, 1, 2)}),
    ],
    ids=str,
)
@torch.no_grad()
def test_with_one_head_it_is_its_rows_times_its_values(axes, space, options):
    mixer, x = layer(axes, num_heads=1, **options), a_map(*space)
    rows, value = mixer.attention_rows(x), mixer.qkv(x)[..., 12:]
    n = math.prod(space)
    close(mixer(x).flatten(1, axes), mixer.proj(rows.dense(n) @ value.flatten(1, axes)))
    shares = mixer.attention_map(x)
    assert shares.shape == (2, *space, 1, *mixer.kernel_size)
    close(shares.flatten(axes + 1).sum(-1), torch.ones(2, *space).double())
    close(rows.shares, shares.flatten(axes + 1).flatten(1, axes))


@torch.no_grad()
def test_what_goes_to_zeros_outside_is_shared_out():
    for options in ({"kernel_size": (5, 3)}, {"kernel_size": 3, "border": "zero"}):
        mixer, x = layer(**options), a_map(3, 4)
        rows = mixer.attention_rows(x)
        close(rows.shares.sum(-1), torch.ones(2, 12).double())
        shares = mixer.attention_map(x).mean(3)
        close(shares.flatten(3).sum(-1), torch.ones(2, 3, 4).double())
        # of the position in the corner; what of its window lies outside is not told as another position's
        kept = shares[:, 0, 0, :3] if "border" not in options else shares[:, 0, 0, 1:, 1:]
        kept = kept / kept.sum((1, 2), keepdim=True)
        close(rows.dense(12)[:, 0].unflatten(1, (3, 4))[:, : kept.shape[1], : kept.shape[2]], kept)


def test_even_attention_is_one_everywhere():
    for options in (
        {"kernel_size": 3},
        {"kernel_size": (7, 3), "stride": 2},
        {"kernel_size": 3, "is_causal": True},
    ):
        mixer = layer(**options)
        for parameter in mixer.parameters():
            nn.init.zeros_(parameter)
        received = mixer.attention_received(a_map(5, 6))
        close(received, torch.ones(2, 5, 6).double())


# dropout, arguments


def test_with_dropout_of_the_softmax_it_is_the_same_function(monkeypatch):
    """Formed tap by tap, and multiplied with what dropout leaves."""
    mixer, x = layer(kernel_size=3, dilation=(1, 2), attn_drop=0.5), a_map(4, 7)
    assert torch.equal(mixer.eval()(x), mixer(x))
    expected = mixer(x)
    assert not torch.allclose(mixer.train()(x), expected)
    monkeypatch.setattr(attention.F, "dropout", lambda t, p, *_: t)
    close(mixer(x), expected)
    monkeypatch.setattr(attention.F, "dropout", lambda t, p, *_: t * (p == 0))
    close(mixer(x), mixer.proj.bias.expand_as(x))


def test_dropout_of_what_comes_out():
    mixer, x = layer(kernel_size=3, proj_drop=0.5), a_map(9, 9)
    y, expected = mixer.train()(x), mixer.eval()(x)
    assert 0.4 < (y == 0).double().mean() < 0.6
    close(torch.where(y == 0, 0, y), torch.where(y == 0, 0, 2 * expected))


def test_multiply_adds():
    assert layer(kernel_size=(3, 5)).macs((2, 7, 9, 6)) == 2 * 63 * (4 * 36 + 2 * 15 * 6)
    # queries of a causal axis see 1, 2, 3, 3, ... keys
    assert layer(1, kernel_size=3, is_causal=True).macs((1, 7, 6)) == 7 * 4 * 36 + 2 * (1 + 2 + 5 * 3) * 6


def test_what_does_not_decay():
    assert layer(kernel_size=3).no_weight_decay() == {"rpb"}
    plain = layer(kernel_size=3, rel_pos_bias=False, qkv_bias=False)
    assert plain.no_weight_decay() == set()
    assert {n for n, _ in plain.named_parameters()} == {"qkv.weight", "proj.weight", "proj.bias"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kernel_size": 0}, "NeighborhoodAttention2d: kernel_size must be an integer of at least 1.*got 0"),
        ({"kernel_size": 3, "stride": 4}, "on axis 0 stride 4 is larger than kernel_size 3"),
        ({"kernel_size": 3, "dilation": (1, 0)}, r"dilation must be .*got \(1, 0\)"),
        ({"kernel_size": 3, "is_causal": (True,)}, "is_causal must be a bool, or one for each of 2 axes"),
        ({"kernel_size": 3, "border": "clamped"}, "unknown border 'clamped'; did you mean 'clamp'"),
        ({"kernel_size": 3, "attn_drop": 1.0}, "attn_drop must be at least 0 and below 1, got 1.0"),
        ({"kernel_size": 3, "qk_scale": math.nan}, "qk_scale must be a finite number or None, got nan"),
    ],
)
def test_windows_that_are_none(options, told):
    with pytest.raises(InvalidInput, match=told):
        NeighborhoodAttention2d(6, num_heads=2, **options)


def test_as_the_mixer_of_a_backbone():
    """Its stride is that of windows, and keeps the map's size; a block that halves the map refuses it."""
    from qna.models import QNA_VIT, BlockSpec

    mixers = ("NeighborhoodAttention2d", {"stride": 2, "kernel_size": 3})
    model = QnAViT.of(QNA_VIT["qna_vit_nano_16"], num_classes=3, mixers=(mixers, None, None))
    found = [m for m in model.modules() if isinstance(m, NeighborhoodAttention2d)]
    assert {m.window["stride"] for m in found} == {(2, 2)}
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 3)
    with pytest.raises(InvalidInput, match="keeps the size of its map and cannot have stride=2"):
        BlockSpec("NeighborhoodAttention2d", {"num_heads": 2, "kernel_size": 3}, stride=2).build(8)
