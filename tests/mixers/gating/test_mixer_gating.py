"""Gating by a token mixer: golden outputs of the authors' code by a rule, and limits where it is simple."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qna._core.errors import InvalidInput
from qna.mixers import MixerGating2d


def by_rule(shape, phase):
    """Values that no two places share, from a formula."""
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(1.7 * n + phase).view(shape)


def mixer_by_rule(dim=4, map_size=(2, 3), hidden=5):
    mixer = MixerGating2d(dim, map_size=map_size, hidden=hidden).double()
    with torch.no_grad():
        for phase, parameter in enumerate(mixer.parameters()):
            parameter.copy_(by_rule(parameter.shape, phase))
    return mixer


def silence(mlp):
    with torch.no_grad():
        mlp.fc2.weight.zero_()
        mlp.fc2.bias.zero_()


@torch.no_grad()
def test_golden_outputs():
    y = mixer_by_rule()(by_rule((2, 2, 3, 4), 0.5))
    expected = [
        [5.223868758011967, 3.0491559471065517, -0.2589187193755661, 0.9516968323915195],
        [-11.704034052558425, -1.1105895022832417, 0.3344221738489764, 3.3049948233919406],
    ]
    torch.testing.assert_close(y[:, 1, 1], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


@torch.no_grad()
def test_silent_mlps_and_a_linear_map_that_changes_nothing_square_the_input():
    mixer, x = mixer_by_rule(), by_rule((2, 2, 3, 4), 0.5)
    silence(mixer.token_mlp)
    silence(mixer.channel_mlp)
    mixer.proj.weight.copy_(torch.eye(4))
    mixer.proj.bias.zero_()
    assert torch.equal(mixer(x), x * x)


@pytest.mark.parametrize("silent", [False, True])
def test_positions_meet_in_the_mlp_along_them_alone(silent):
    mixer, x = mixer_by_rule(), by_rule((1, 2, 3, 4), 0.5).requires_grad_()
    if silent:
        silence(mixer.token_mlp)
    (grad,) = torch.autograd.grad(mixer(x)[0, 1, 1].sum(), x)
    assert (grad[0].abs().sum(-1) > 0).sum() == (1 if silent else 6)


def test_gradients_and_multiply_adds():
    mixer, x = mixer_by_rule(), by_rule((2, 2, 3, 4), 0.5).requires_grad_()
    assert torch.autograd.gradcheck(mixer, (x,), fast_mode=True)
    with FlopCounterMode(display=False) as counter:
        mixer(x)
    assert counter.get_total_flops() == 2 * mixer.macs(x.shape)


def test_hidden_positions_and_channels_are_twice_the_channels_as_published():
    mixer = MixerGating2d(6, map_size=(2, 5))
    shapes = {n: tuple(p.shape) for n, p in mixer.named_parameters() if n.endswith("fc1.weight")}
    assert shapes == {"token_mlp.fc1.weight": (12, 10), "channel_mlp.fc1.weight": (12, 6)}


def test_elements_held_by_hand():
    """Of two images with 2 x 3 positions of 4 channels; then the hidden ones of the MLP that has more."""
    for hidden, map_size in ((5, (2, 3)), (40, (2, 3)), (5, (1, 2))):
        mixer, positions = MixerGating2d(4, map_size=map_size, hidden=hidden), map_size[0] * map_size[1]
        along = 2 * hidden * max(4, positions)
        assert mixer.held((2, *map_size, 4)) == 2 * (3 * positions * 4 + along)


def test_linear_maps_begin_as_torch_makes_them():
    """Uniform to the root of 1 / inputs, biases too."""
    torch.manual_seed(0)
    mixer = MixerGating2d(64, map_size=16)
    linear = {n: m for n, m in mixer.named_modules() if isinstance(m, torch.nn.Linear)}
    assert len(linear) == 5
    for layer in linear.values():
        bound = layer.in_features**-0.5
        for tensor in (layer.weight, layer.bias):
            assert 0.9 * bound < tensor.abs().max() <= bound


def test_dropout_in_training_alone():
    mixer, x = MixerGating2d(8, map_size=4, drop=0.5), torch.randn(2, 4, 4, 8)
    assert not torch.equal(mixer(x), mixer(x))
    mixer.eval()
    assert torch.equal(mixer(x), mixer(x))


def test_other_sizes_are_refused_with_the_way_out():
    with pytest.raises(InvalidInput, match=r"each of the 2 x 3 positions .* got 3 x 2; .*map_size=\(3, 2\)"):
        mixer_by_rule()(torch.zeros(1, 3, 2, 4).double())
    with pytest.raises(InvalidInput, match="drop must be at least 0 and below 1, got 1"):
        MixerGating2d(4, map_size=2, drop=1.0)
