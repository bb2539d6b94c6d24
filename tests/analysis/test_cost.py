"""Multiply-adds: the published figures, the formulas, and a rule for every mixer."""

import pytest
import timm
import torch
from torch import nn

import qna
from qna.analysis.cost import layer_costs, total_macs


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [("qna_vit_tiny", 2.43), ("qna_vit_tiny_7x7", 2.51), ("qna_vit_small", 4.35), ("qna_vit_base", 9.51)],
)
def test_published_sizes(name, gmacs):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert round(total_macs(model, (1, 3, 224, 224)) / 1e9, 2) == gmacs


def test_one_qna_layer_by_hand():
    layer = qna.QnA2d(8, num_heads=2, kernel_size=3, stride=2)  # 16 channels and 4 heads come out
    n, n_out, Lh, LC, K = 5 * 7, 3 * 4, 2 * 4, 2 * 16, 9
    scores_and_values = n * 8 * (Lh + 16)
    sums = n * LC + n_out * K * LC + n_out * K * Lh
    once = 8 * 16 * 2
    assert total_macs(layer, (1, 5, 7, 8)) == scores_and_values + sums + n_out * 16 * 16 + once
    # what is formed once does not grow with the batch
    assert total_macs(layer, (3, 5, 7, 8)) == 3 * (scores_and_values + sums + n_out * 16 * 16) + once


def test_fusing_saves_the_product_of_keys_and_queries():
    layer = qna.QnA2d(8, num_heads=2, kernel_size=3)
    before = total_macs(layer, (1, 5, 7, 8))
    assert before - total_macs(layer.fuse(), (1, 5, 7, 8)) == 8 * 8 * 2


def test_pooling_is_one_window_over_the_map():
    pool = qna.QnAPool2d(8, num_heads=2, map_size=(4, 6))
    n, Lh, LC = 24, 4, 16
    assert total_macs(pool, (1, 4, 6, 8)) == n * 8 * (Lh + 8) + n * LC + n * (LC + Lh) + 64 + 128


def test_windows_count_their_padding():
    layer = qna.WindowAttention2d(8, num_heads=2, window_size=3)
    assert total_macs(layer, (1, 5, 7, 8)) == 4 * 35 * 64 + 2 * (6 * 9) * 9 * 8
    assert total_macs(layer, (1, 2, 2, 8)) == 4 * 4 * 64 + 2 * 4 * 4 * 8


def test_plain_layers_agree_with_the_flop_counter():
    from torch.utils.flop_counter import FlopCounterMode

    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.GELU(), nn.Linear(7, 5), nn.Flatten(2), nn.Conv1d(6, 4, 3, groups=2),
        nn.Unflatten(2, (1, 1, -1)), nn.Conv3d(4, 2, (1, 1, 5)),
    )  # fmt: skip
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.randn(2, 3, 11, 15))
    assert total_macs(model, (2, 3, 11, 15)) * 2 == counter.get_total_flops()


def test_layers_are_listed_by_name_and_the_model_is_left_alone():
    model = timm.create_model("qna_vit_nano_16")
    costs = layer_costs(model, (1, 3, 16, 16))
    assert costs[0].name == "stem.conv"
    assert costs[0].macs == 8 * 8 * 3 * 4 * 32
    assert {"stages.1.0.mixer", "stages.1.0.shortcut.proj", "stages.2.1.mixer", "head.fc"} <= {
        c.name for c in costs
    }
    assert not any(module._forward_hooks for module in model.modules())
    assert next(model.parameters()).device.type == "cpu"
