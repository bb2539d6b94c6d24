"""Shifted windows: equal to timm's Swin block, to a loop over cut windows, to windows without a shift."""

import pytest
import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput
from qna._core.third_party import import_vision
from qna.mixers import ShiftedWindowAttention2d, WindowAttention2d


def swin_block(size, window, shift, dim=12, heads=3):
    """timm's block, every parameter a value of its own."""
    module = import_vision("timm.models.swin_transformer", extra="models", purpose="a comparison")
    torch.manual_seed(0)
    block = module.SwinTransformerBlock(
        dim, size, num_heads=heads, window_size=window, shift_size=shift, qkv_bias=True
    ).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5)
    return block


def with_weights_of(block, window, shift, border="mask"):
    """Ours, with the weights of timm's block, whose window is that of its map where that is smaller."""
    attention = block.attn
    mixer = ShiftedWindowAttention2d(
        attention.qkv.in_features,
        num_heads=attention.num_heads,
        window_size=block.window_size if border == "mask" else window,
        shift_size=shift,
        border=border,
    ).double()
    mixer.qkv.load_state_dict(attention.qkv.state_dict())
    mixer.out.load_state_dict(attention.proj.state_dict())
    with torch.no_grad():
        table = attention.relative_position_bias_table
        mixer.position_table.copy_(table.view(mixer.position_table.shape))
    return mixer


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [((8, 12), 4, 2), ((14, 7), 7, 3), ((6, 9), 3, 1), ((12, 4), 4, 1), ((7, 7), 7, 3), ((15, 10), 5, 4)],
)
@torch.no_grad()
def test_equals_timms_swin_block(size, window, shift):
    block = swin_block(size, window, shift)
    mixer, x = with_weights_of(block, window, shift), torch.randn(2, *size, 12, dtype=torch.float64)
    expected = block._attn(x)
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-12 * expected.std().item())


@pytest.mark.parametrize(("size", "window", "shift"), [((10, 13), 4, 2), ((5, 3), 4, 3), ((1, 1), 3, 1)])
@torch.no_grad()
def test_zeros_outside_are_those_of_swins_code_for_detection(size, window, shift):
    """It pads the map to whole windows first and rolls then: timm's block on the padded map."""
    padded = [-(-n // window) * window for n in size]
    # a window that holds the padded axis is shifted all the same there
    block = swin_block([2 * n for n in padded], window, shift)
    block.dynamic_mask = True
    mixer = with_weights_of(block, window, shift, border="zero")
    x = torch.randn(2, *size, 12, dtype=torch.float64)
    whole = F.pad(x, (0, 0, 0, padded[1] - size[1], 0, padded[0] - size[0]))
    expected = block._attn(whole)[:, : size[0], : size[1]]
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-12 * expected.std().item())


@torch.no_grad()
def test_where_windows_do_not_divide_the_map_timms_first_rows_attend_its_last_ones():
    """Why ours is not timm's there: it rolls before it pads, and its mask is that of the padded map."""
    block = swin_block((9, 12), 4, 2)
    mixer, x = with_weights_of(block, 4, 2), torch.randn(1, 9, 12, 12, dtype=torch.float64)
    changed = x.clone()
    changed[:, 0] += 1

    def moved(attend):
        return (attend(changed) - attend(x)).abs().amax((0, 2, 3)) > 1e-6

    assert moved(block._attn).nonzero().flatten().tolist() == [0, 6, 7, 8]
    assert moved(mixer).nonzero().flatten().tolist() == [0, 1]


def loop_output(mixer, x):
    """Attention inside every window [s - w, s), [s, s + w), ..., cut at the map."""
    edges = []
    for n, w, s in zip(x.shape[1:3], mixer.window_size, mixer.shift_size, strict=True):
        starts = range(0, n, w) if w >= n or not s else [0, *range(s, n, w)]
        edges.append(list(zip(starts, [*starts[1:], n], strict=True)))
    out = torch.empty_like(x)
    for top, bottom in edges[0]:
        for left, right in edges[1]:
            places = torch.cartesian_prod(torch.arange(top, bottom), torch.arange(left, right))
            window = x[:, places[:, 0], places[:, 1]]
            q, k, v = mixer.qkv(window).unflatten(-1, (3, mixer.num_heads, -1)).unbind(2)
            offset = places[:, None] - places + torch.tensor(mixer.window_size) - 1
            bias = mixer.position_table[offset[..., 0], offset[..., 1]]
            logits = torch.einsum("bnhd,bmhd->bnmh", q, k) / q.shape[-1] ** 0.5 + bias
            attended = torch.einsum("bnmh,bmhd->bnhd", logits.softmax(2), v)
            out[:, places[:, 0], places[:, 1]] = attended.flatten(2)
    return mixer.out(out)


def mixer_of(window, shift, **options):
    torch.manual_seed(0)
    mixer = ShiftedWindowAttention2d(8, num_heads=2, window_size=window, shift_size=shift, **options)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_()
    return mixer.double()


@pytest.mark.parametrize("size", [(6, 9), (5, 7), (1, 1), (2, 10), (7, 3)])
@pytest.mark.parametrize(("window", "shift"), [(3, 1), ((2, 5), (1, 3)), (4, (0, 3))])
@torch.no_grad()
def test_equals_the_loop_at_any_size(size, window, shift):
    mixer, x = mixer_of(window, shift), torch.randn(2, *size, 8, dtype=torch.float64)
    torch.testing.assert_close(mixer(x), loop_output(mixer, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("border", ["mask", "zero"])
@torch.no_grad()
def test_without_a_shift_they_are_windows(border):
    shifted, plain = (
        mixer_of(3, 0, border=border),
        WindowAttention2d(8, num_heads=2, window_size=3, bias=True, border=border),
    )
    plain.double().load_state_dict(shifted.state_dict())
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    assert torch.equal(shifted(x), plain(x))


@torch.no_grad()
def test_zeros_of_windows_are_a_padded_map():
    """Padding to whole windows beforehand changes nothing where zeros are keys, and much where not."""
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    whole = F.pad(x, (0, 0, 0, 2, 0, 1))
    mixer = mixer_of(3, 0, border="zero")
    torch.testing.assert_close(mixer(x), mixer(whole)[:, :5, :7], rtol=1e-12, atol=1e-12)
    masked = mixer_of(3, 0)
    assert (masked(x) - masked(whole)[:, :5, :7]).abs().max() > 0.1


def test_attention_is_told_where_it_lies():
    mixer, x = mixer_of(3, 1), torch.randn(2, 7, 8, 8, dtype=torch.float64)
    rows = mixer.attention_rows(x).dense(56)
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 56).double())
    # windows on either side of the first cut
    assert not rows[:, :8, 8:].any()
    assert (rows.unflatten(2, (7, 8))[:, 8, 1:4, 0] > 0).all()


def test_gradients():
    mixer, x = mixer_of((2, 3), (1, 2)), torch.randn(1, 3, 4, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mixer, (x,), fast_mode=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shift_size": 3}, r"shift_size must be below window_size, got \(3, 3\) and \(3, 3\)"),
        ({"shift_size": -1}, "shift_size must be an integer of at least 0"),
        ({"border": "clamp"}, "unknown border 'clamp'"),
    ],
)
def test_wrong_arguments_are_named(options, says):
    with pytest.raises(InvalidInput, match=says):
        ShiftedWindowAttention2d(8, num_heads=2, window_size=3, **options)
