"""Controls against timm's layers of the same name and against loops over their definitions."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.third_party import import_vision
from qna.mixers import DepthwiseConvolution2d, FullAttention2d, Identity2d, Pooling2d, WindowAttention2d


def timm_module(name):
    return import_vision(name, extra="models", purpose="a comparison")


def randomised(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module.double()


def a_map(*size, dim=8):
    return torch.randn(2, *size, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("size", [(6, 6), (5, 9)])
@torch.no_grad()
def test_depthwise_convolution_is_that_of_timms_convnext_block(size):
    block = randomised(timm_module("timm.models.convnext").ConvNeXtBlock(8))
    mixer = DepthwiseConvolution2d(8, kernel_size=7, bias=True).double()
    mixer.filter.load_state_dict(block.conv_dw.state_dict())
    x = a_map(*size)
    expected = block.conv_dw(x.movedim(-1, 1)).movedim(1, -1)
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kernel", [3, 4, (2, 5), 1])
@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
@torch.no_grad()
def test_depthwise_convolution_is_a_loop_over_its_windows(kernel, stride):
    mixer = randomised(DepthwiseConvolution2d(8, kernel_size=kernel, stride=stride, projections=True))
    x = a_map(5, 7)
    value, (rows, columns) = mixer.value(x), mixer.kernel_size
    filtered = torch.zeros(2, *(-(-n // s) for n, s in zip((5, 7), mixer.stride, strict=True)), 8).double()
    for i in range(filtered.shape[1]):
        for j in range(filtered.shape[2]):
            for a in range(rows):
                for b in range(columns):
                    y = i * mixer.stride[0] - (rows - 1) // 2 + a
                    z = j * mixer.stride[1] - (columns - 1) // 2 + b
                    if 0 <= y < 5 and 0 <= z < 7:
                        filtered[:, i, j] += value[:, y, z] * mixer.filter.weight[:, 0, a, b]
    torch.testing.assert_close(mixer(x), mixer.out(filtered), rtol=1e-12, atol=1e-12)


def test_a_filter_of_one_tap_in_the_middle_leaves_the_projections():
    mixer, x = randomised(DepthwiseConvolution2d(8, kernel_size=3, projections=True)), a_map(4, 5)
    with torch.no_grad():
        mixer.filter.weight.zero_()[:, :, 1, 1] = 1
    torch.testing.assert_close(mixer(x), mixer.out(mixer.value(x)))


@pytest.mark.parametrize("kernel", [3, 5])
def test_pooling_is_that_of_timms_poolformer(kernel):
    theirs, x = timm_module("timm.models.metaformer").Pooling(kernel), a_map(4, 7)
    expected = theirs(x.movedim(-1, 1)).movedim(1, -1)
    torch.testing.assert_close(Pooling2d(8, kernel_size=kernel)(x), expected, rtol=0, atol=1e-14)


def test_pooling_of_a_constant_map_is_zero_also_at_borders():
    x = a_map(1, 1).expand(2, 5, 6, 8)
    torch.testing.assert_close(Pooling2d(8, kernel_size=(3, 5))(x), torch.zeros_like(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_full_attention_is_timms(bias):
    theirs = randomised(
        timm_module("timm.layers").Attention(8, num_heads=2, qkv_bias=bias, proj_bias=bias)
    ).eval()
    mixer, x = FullAttention2d(8, num_heads=2, bias=bias).double(), a_map(3, 7)
    mixer.qkv.load_state_dict(theirs.qkv.state_dict())
    mixer.out.load_state_dict(theirs.proj.state_dict())
    expected = theirs(x.flatten(1, 2)).view_as(x)
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-13)


@torch.no_grad()
def test_full_attention_is_one_window_over_the_map_without_positions():
    window = randomised(WindowAttention2d(8, num_heads=2, window_size=9))
    window.position_table.zero_()
    full, x = FullAttention2d(8, num_heads=2).double(), a_map(4, 7)
    full.load_state_dict(window.state_dict(), strict=False)
    torch.testing.assert_close(full(x), window(x), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_full_attention_moves_with_its_positions():
    mixer, x = randomised(FullAttention2d(8, num_heads=2)), a_map(3, 7)
    order = torch.randperm(21, generator=torch.Generator().manual_seed(3))
    moved = x.flatten(1, 2)[:, order].view_as(x)
    torch.testing.assert_close(mixer(moved).flatten(1, 2), mixer(x).flatten(1, 2)[:, order])


@torch.no_grad()
def test_full_attention_tells_its_rows():
    mixer, x = randomised(FullAttention2d(8, num_heads=1)), a_map(3, 4)
    rows = mixer.attention_rows(x).dense(12)
    value = mixer.qkv(x)[..., 16:].flatten(1, 2)
    torch.testing.assert_close(mixer(x).flatten(1, 2), mixer.out(rows @ value), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mixer.attention_received(x).flatten(1), rows.sum(1))


def test_scores_of_full_attention_are_not_formed():
    mixer, x = FullAttention2d(8, num_heads=2), torch.randn(1, 4, 4, 8)
    with torch.no_grad(), torch.profiler.profile() as profile:
        mixer(x)
    names = {event.key for event in profile.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names


def test_identity():
    x = a_map(3, 4)
    assert Identity2d(8)(x) is x


def test_a_pooling_window_has_a_middle():
    with pytest.raises(InvalidInput, match=r"kernel_size must be odd, got \(3, 4\)"):
        Pooling2d(8, kernel_size=(3, 4))
    with pytest.raises(InvalidInput, match="dim must be an integer of at least 1, got 0"):
        Identity2d(0)
