"""Attention received: against the maps counted out, against even attention, and its total."""

import pytest
import torch

from qna.mixers import QnA1d, QnA2d, QnA3d, QnAPool2d, QnAUpsample2d, WindowAttention2d
from qna.ops._shared.window import Window


def sharpened(mixer):
    """A mixer whose attention is far from even."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(std=1.0)
    return mixer.double()


def counted_out(mixer, x):
    """Sum of shares per position, window by window, from the map that the mixer shows."""
    shares = mixer.attention_map(x).sum((3, 4))  # B, H', W', *kernel
    window = Window.over(
        x.shape[1:3], mixer.kernel_size, stride=mixer.stride, padding="same", dilation=mixer.dilation
    )
    received = torch.zeros(x.shape[:3], dtype=torch.float64)
    for i, j in torch.cartesian_prod(*map(torch.arange, shares.shape[1:3])).tolist():
        for a in range(mixer.kernel_size[0]):
            for b in range(mixer.kernel_size[1]):
                r = i * mixer.stride[0] - window.before[0] + a * mixer.dilation[0]
                c = j * mixer.stride[1] - window.before[1] + b * mixer.dilation[1]
                if 0 <= r < x.shape[1] and 0 <= c < x.shape[2]:
                    received[:, r, c] += shares[:, i, j, a, b]
    return received


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 3}, {"kernel_size": (4, 3), "stride": 2}, {"kernel_size": 9, "dilation": 2}],
    ids=str,
)
def test_qna_agrees_with_its_maps_counted_out(options):
    mixer = sharpened(QnA2d(8, num_heads=2, **options))
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    received, actual = counted_out(mixer, x), mixer.attention_received(x)
    for parameter in mixer.parameters():
        torch.nn.init.zeros_(parameter)
    even = counted_out(mixer, x)
    expected = torch.where(even > 0, received / even, 0)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert (actual - 1).abs().max() > 0.1


@pytest.mark.parametrize(
    ("mixer", "shape"),
    [
        (QnA1d(8, num_heads=2, kernel_size=4), (2, 9, 8)),
        (QnA2d(8, num_heads=2, kernel_size=5), (2, 3, 7, 8)),
        (QnA3d(8, num_heads=2, kernel_size=3, stride=2), (1, 3, 4, 5, 8)),
        (QnAPool2d(8, num_heads=2, map_size=4), (2, 3, 5, 8)),
        (QnAUpsample2d(8, num_heads=2, factor=(2, 3)), (2, 3, 5, 8)),
        (WindowAttention2d(8, num_heads=2, window_size=4), (2, 6, 7, 8)),
    ],
    ids=lambda m: type(m).__name__,
)
def test_even_attention_is_one_everywhere(mixer, shape):
    for parameter in mixer.parameters():
        torch.nn.init.zeros_(parameter)
    received = mixer.attention_received(torch.randn(shape))
    torch.testing.assert_close(received, torch.ones(shape[:-1]))


def test_a_position_that_no_window_sees_gets_nothing():
    mixer = sharpened(QnA1d(8, num_heads=2, kernel_size=1, stride=2))
    received = mixer.attention_received(torch.randn(1, 5, 8, dtype=torch.float64))
    assert received.tolist() == [[1, 0, 1, 0, 1]]


@pytest.mark.parametrize(
    "mixer",
    [QnAPool2d(8, num_heads=2, map_size=4), WindowAttention2d(8, num_heads=2, window_size=4)],
    ids=repr,
)
def test_the_mean_is_one_where_all_is_shared_out(mixer):
    x = torch.randn(2, 6, 7, 8, dtype=torch.float64)
    received = sharpened(mixer).attention_received(x)
    torch.testing.assert_close(received.mean((1, 2)), torch.ones(2, dtype=torch.float64))
    assert (received - 1).abs().max() > 0.1
    # one image's map does not depend on the others
    torch.testing.assert_close(received[1:], mixer.attention_received(x[1:]))
