"""Rows of attention: with one head and one query, the layer is its rows times its values."""

import pytest
import torch

from qna.mixers import (
    MIXERS,
    QnA1d,
    QnA2d,
    QnA3d,
    QnAPool2d,
    QnAUpsample1d,
    QnAUpsample2d,
    WindowAttention2d,
    create_mixer,
)
from tests.mixers.test_attention_received import sharpened

PLAIN = {"num_heads": 1, "out_dim": 6, "num_queries": 1, "query_weight": "none"}


@pytest.mark.parametrize(
    ("mixer", "space"),
    [
        (QnA1d(6, kernel_size=4, dilation=2, **PLAIN), (7,)),
        (QnA2d(6, kernel_size=3, **PLAIN), (5, 7)),
        (QnA2d(6, kernel_size=(4, 3), stride=2, **PLAIN), (5, 8)),
        (QnA2d(6, kernel_size=9, dilation=2, stride=(1, 3), **PLAIN), (3, 4)),
        (QnA3d(6, kernel_size=(2, 3, 3), stride=2, **PLAIN), (3, 4, 5)),
        (QnAPool2d(6, map_size=4, **PLAIN), (3, 5)),
        (QnAUpsample1d(6, num_heads=1, factor=3, kernel_size=4), (5,)),
        (QnAUpsample2d(6, num_heads=1, factor=(1, 3), kernel_size=(2, 3)), (3, 4)),
    ],
    ids=repr,
)
def test_qna_is_its_rows_times_its_values(mixer, space):
    mixer, x = sharpened(mixer), torch.randn(2, *space, mixer.dim, dtype=torch.float64)
    n = x[0, ..., 0].numel()
    rows = mixer.attention_rows(x)
    value = mixer.project(x).split()[1].reshape(2, n, -1)
    expected = mixer.out(rows.dense(n) @ value)
    torch.testing.assert_close(mixer(x).reshape(expected.shape), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(rows.shares.sum(-1), torch.ones(2, rows.shares.shape[1]).double())


@pytest.mark.parametrize(("window", "space"), [(3, (5, 7)), (4, (8, 4)), (9, (3, 5)), ((2, 5), (6, 6))])
def test_windows_are_their_rows_times_their_values(window, space):
    mixer = sharpened(WindowAttention2d(6, num_heads=1, window_size=window))
    x = torch.randn(2, *space, 6, dtype=torch.float64)
    n = space[0] * space[1]
    rows = mixer.attention_rows(x)
    value = mixer.qkv(x)[..., 12:].reshape(2, n, 6)
    expected = mixer.out(rows.dense(n) @ value)
    torch.testing.assert_close(mixer(x).reshape(expected.shape), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(rows.shares.sum(-1), torch.ones(2, n).double())


@pytest.mark.parametrize("name", [n for n in MIXERS if hasattr(MIXERS[n].build, "attention_received")])
def test_rows_of_several_heads_sum_to_one_and_agree_with_attention_received(name):
    example = MIXERS[name].example
    mixer = sharpened(create_mixer(name, example.dim, **example.arguments))
    x = torch.randn(2, *example.space, example.dim, dtype=torch.float64)
    n = x[0, ..., 0].numel()
    rows = mixer.attention_rows(x)
    every_row = torch.ones_like(rows.shares[:, :, 0])
    # learned places may lie outside the map, whose zeros are nobody's
    reads_outside = hasattr(mixer, "places")
    if reads_outside:
        assert ((rows.shares >= 0).all(-1) & (rows.shares.sum(-1) <= 1 + 1e-9)).all()
    else:
        torch.testing.assert_close(rows.shares.sum(-1), every_row)
    got, expected = rows.pull(every_row, n), mixer.attention_received(x).flatten(1)
    for parameter in mixer.parameters():
        torch.nn.init.zeros_(parameter)
    # of routes that depend on the map zeros leave ties, and even ones give every position its own
    own = hasattr(mixer, "routes") or reads_outside
    even = torch.ones_like(got) if own else mixer.attention_rows(x).pull(every_row, n)
    torch.testing.assert_close(torch.where(even > 0, got / even, 0), expected, rtol=1e-9, atol=1e-9)


def test_a_window_that_sees_nothing_has_a_row_of_zeros():
    mixer = sharpened(QnA1d(6, kernel_size=2, dilation=5, **PLAIN))
    rows = mixer.attention_rows(torch.randn(1, 3, 6, dtype=torch.float64))
    # taps at -2 and +3 of three positions: only the last window sees one
    assert rows.shares.sum(-1).tolist() == [[0, 0, 1]]
