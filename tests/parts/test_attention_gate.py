"""The attention gate: a loop over its equations, MONAI's additive form, counts, and its limits."""

import pytest
import torch
from monai.networks.nets.attentionunet import AttentionBlock
from torch import nn

from qna._core.errors import InvalidInput, UnknownName
from qna.parts.attention_gate import AttentionGate


def made_by_rule(axes, dim, **options):
    """A gate in evaluation mode with a value by a rule in every parameter and every average."""
    gate = AttentionGate(axes, dim, **options).double().eval()
    with torch.no_grad():
        for phase, (name, tensor) in enumerate(gate.state_dict().items()):
            if tensor.is_floating_point():
                n = torch.arange(tensor.numel(), dtype=torch.float64)
                values = torch.sin(1.7 * n + phase).view(tensor.shape)
                tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    return gate


def by_rule(shape, phase):
    return torch.sin(1.7 * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + phase).view(shape)


def normed(layer, x):
    """The convolution of one tap and the norm, of one position's channels."""
    convolution, norm = layer
    y = convolution.weight.flatten(1) @ x + convolution.bias
    return (y - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias


@pytest.mark.parametrize("join", ["concatenated", "added"])
@pytest.mark.parametrize("space", [(4, 4), (3, 5), (2, 3, 4)])
@torch.no_grad()
def test_equals_a_loop(join, space):
    gate = made_by_rule(len(space), 6, gating_dim=4, join=join)
    skip, gating = by_rule((2, 6, *space), 0.2), by_rule((2, 4, *space), 0.7)
    expected = torch.empty_like(skip)
    columns = [t.flatten(2) for t in (skip, gating, expected)]
    for image in range(2):
        for i in range(columns[0].shape[2]):
            x, g = (column[image, :, i] for column in columns[:2])
            a, b = normed(gate.gating, g), normed(gate.skip, x)
            joined = torch.cat([a, b]) if join == "concatenated" else a + b
            columns[2][image, :, i] = x / (1 + torch.exp(-normed(gate.psi, joined.clamp_min(0))))
    found = gate(skip, gating)
    assert (found - skip).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("space", [(4, 4), (3, 2, 5)])
@torch.no_grad()
def test_added_equals_monais(space):
    gate = made_by_rule(len(space), 6, hidden=3, join="added", eps=1e-5)
    theirs = AttentionBlock(len(space), f_int=3, f_g=6, f_l=6).double().eval()
    # in their order: W_g, W_x, psi
    theirs.load_state_dict(dict(zip(theirs.state_dict(), gate.state_dict().values(), strict=True)))
    skip, gating = by_rule((2, 6, *space), 0.2), by_rule((2, 6, *space), 0.7)
    torch.testing.assert_close(gate(skip, gating), theirs(gating, skip), rtol=0, atol=1e-13)


# of the authors' attention_block in float64, with the values of `made_by_rule` and n / 2 = 4 hidden channels
GOLDEN = [0.16504430003026485, -0.16286277559028764, 0.1604114482305594, -0.1576943788869056]


@torch.no_grad()
def test_golden_outputs_of_the_authors():
    gate = made_by_rule(3, 8)
    y = gate(by_rule((2, 8, 2, 3, 4), 0.2), by_rule((2, 8, 2, 3, 4), 0.7))
    expected = torch.tensor(GOLDEN, dtype=torch.float64)
    torch.testing.assert_close(y[1, :4, 1, 2, 3], expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("n", "counted"), [(16, 323), (64, 4355)])
@pytest.mark.parametrize("axes", [2, 3])
def test_counts_are_the_published_ones(n, counted, axes):
    assert sum(p.numel() for p in AttentionGate(axes, n).parameters()) == counted == n * n + 4 * n + 3
    added = AttentionGate(axes, n, join="added")
    assert sum(p.numel() for p in added.parameters()) == n * n + 3.5 * n + 3


@torch.no_grad()
def test_a_large_bias_opens_the_gate():
    gate = made_by_rule(3, 6)
    skip, gating = by_rule((2, 6, 2, 3, 4), 0.2), by_rule((2, 6, 2, 3, 4), 0.7)
    norm = gate.psi[1]
    norm.bias.fill_(100)
    assert torch.equal(gate(skip, gating), skip)
    norm.bias.fill_(-800)
    assert not gate(skip, gating).any()


@torch.no_grad()
def test_it_depends_on_both_and_is_one_number_a_position():
    gate = made_by_rule(2, 6)
    skip, gating = by_rule((2, 6, 3, 5), 0.2), by_rule((2, 6, 3, 5), 0.7)
    psi = gate.gate_map(skip, gating)
    assert psi.shape == (2, 1, 3, 5)
    assert 0 <= psi.min() < psi.max() <= 1
    assert (psi - gate.gate_map(skip.flip(0), gating)).abs().max() > 1e-3
    assert (psi - gate.gate_map(skip, gating.flip(0))).abs().max() > 1e-3
    torch.testing.assert_close(gate(skip, gating), skip * psi)


@pytest.mark.parametrize("join", ["concatenated", "added"])
def test_every_parameter_gets_a_gradient(join):
    gate = made_by_rule(3, 4, join=join)
    skip, gating = (by_rule((2, 4, 1, 2, 3), phase).requires_grad_() for phase in (0.2, 0.7))
    gate(skip, gating).square().sum().backward()
    tensors = {**dict(gate.named_parameters()), "skip": skip, "gating": gating}
    assert [name for name, t in tensors.items() if t.grad is None or not t.grad.any()] == []
    gate.requires_grad_(False)
    assert torch.autograd.gradcheck(gate, (skip, gating), fast_mode=True)


def test_it_compiles_and_is_saved():
    gate, both = made_by_rule(2, 4), (by_rule((2, 4, 3, 5), 0.2), by_rule((2, 4, 3, 5), 0.7))
    torch.testing.assert_close(torch.compile(gate, backend="aot_eager", fullgraph=True)(*both), gate(*both))
    twin = AttentionGate(2, 4).double().eval()
    twin.load_state_dict(gate.state_dict())
    assert torch.equal(twin(*both), gate(*both))
    assert isinstance(twin.psi[1], nn.BatchNorm2d)
    assert twin.psi[1].eps == 1e-3


def test_what_it_refuses():
    gate = AttentionGate(3, 4)
    x = torch.randn(1, 4, 2, 3, 5)
    with pytest.raises(
        InvalidInput, match=r"bring the gating signal to the skip's size \(2, 3, 5\) first; it"
    ):
        gate(x, x[..., :4])
    with pytest.raises(
        InvalidInput, match=r"the skip must have 3 axes behind batch and 4 channels, got \(1, 3"
    ):
        gate(x[:, :3], x)
    with pytest.raises(InvalidInput, match="the gating signal must have 3 axes"):
        gate(x, x[0])
    with pytest.raises(InvalidInput, match="axes must be 2 or 3, got 1"):
        AttentionGate(1, 4)
    with pytest.raises(UnknownName, match="unknown join 'add'; did you mean 'added'"):
        AttentionGate(2, 4, join="add")
