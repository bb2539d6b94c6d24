"""Formulas against torch's flop counter, and bytes by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qna.analysis.cost import total_macs
from qna.analysis.footprint import layer_footprints, op_bytes_moved, peak_bytes
from qna.bench.measure.contender import Setting
from qna.bench.subjects.cost import layer_cost, model_layers
from qna.bench.subjects.peers import PEERS
from qna.bench.subjects.whole_model import create
from qna.mixers import QnA2d, WindowAttention2d
from qna.models._parts.block import MixerBlock


@pytest.mark.parametrize("window", [3, 7])
def test_a_qna_layer_counts_what_the_flop_counter_sees_in_the_paper_s_form(window):
    size = (2, 12, 10, 32)
    n, C, L, h = 2 * 12 * 10, 32, 2, 4
    setting = Setting(batch=2, height=12, width=10, dim=C, window=window, heads=h)
    contender = PEERS["two-conv"].build(setting, "layer")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        contender.forward()
    # the product of values and exponentials is no matrix product, which is all that the counter knows
    expected = 2 * (total_macs(QnA2d(C, num_heads=h, kernel_size=window), size) - n * L * C)
    assert counter.get_total_flops() == expected
    assert layer_cost(size, window, 8, L).macs * 2 == expected + 2 * n * L * C


def test_window_attention_counts_what_the_flop_counter_sees():
    layer = WindowAttention2d(32, num_heads=2, window_size=4)
    # with gradients: the counter does not know the kernel of inference
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(2, 8, 12, 32))
    assert counter.get_total_flops() == 2 * total_macs(layer, (2, 8, 12, 32))


def test_bytes_moved_are_input_output_and_weights_once():
    (only,) = layer_footprints(nn.Linear(8, 16), (3, 5, 8), itemsize=2)
    assert only.moved == 2 * (15 * 8 + 15 * 16 + 8 * 16 + 16)
    assert only.peak == 2 * (15 * 8 + 15 * 16)


def test_the_op_moves_scores_values_and_output_and_in_backward_their_gradients():
    assert op_bytes_moved(10, 64, 16) == 4 * 10 * (64 + 16 + 64)
    forward, inputs = 64 + 16 + 64, 64 + 16
    # read inputs, output and its gradient, write the gradients of the inputs
    assert op_bytes_moved(10, 64, 16, backward=True, itemsize=2) == 2 * 10 * (forward + 2 * inputs + 2 * 64)


def test_peak_of_a_strided_layer_and_of_a_block_by_hand():
    layer = QnA2d(8, num_heads=2, kernel_size=3, stride=2)  # 16 channels and 4 heads come out
    n, n_out = 6 * 6, 3 * 3
    # beside the input: values and scores, and what was attended; the output is smaller than the former
    assert peak_bytes(layer, (1, 6, 6, 8)) == 4 * (n * 8 + n * (16 + 8) + n_out * 16)
    plain = QnA2d(8, num_heads=2, kernel_size=3)
    block = MixerBlock(8, plain, out_dim=8)
    # the input, the map after the mixer, its normalised form, and twice four times the channels
    assert peak_bytes(block, (1, 6, 6, 8)) == 4 * n * 8 * (3 + 8)


def test_layers_of_a_model_add_up():
    layers = model_layers("qna_vit_nano_16", 16)
    (first, *_), macs = layers[0], sum(layer[2] for layer in layers)
    assert first == "stem.conv"
    model = create("qna_vit_nano_16", 16)
    assert macs == total_macs(model, (1, 3, 16, 16))
