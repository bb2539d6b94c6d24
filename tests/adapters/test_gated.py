"""Gated attention: its definition in all places, and the limits that leave the bare network."""

import copy
import math

import pytest
import timm
import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput, UnknownName
from qna.adapters import GatedAttention, adapter
from qna.parts.head_gate import POSITIONS, HeadGate
from tests.adapters.bases import BASES, SMALL
from tests.adapters.contract import images


def filled(network):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return network.double().eval()


def tokens():
    return torch.randn(2, 7, 24, dtype=torch.double, generator=torch.Generator().manual_seed(4))


def by_definition(old, gates, x, position):
    """Head by head and channel by channel; `gates` (B, N, heads, head_dim)."""
    q, k, v = (part.unflatten(-1, (3, 8)).clone() for part in old.qkv(x).chunk(3, -1))
    for name, part in (("query", q), ("key", k), ("value", v)):
        if name == position:
            part.mul_(gates)
    heads = []
    for h in range(3):
        scores = q[:, :, h] @ k[:, :, h].transpose(1, 2) / math.sqrt(8)
        y = scores.softmax(-1) @ v[:, :, h]
        heads.append(y * gates[:, :, h] if position == "output" else y)
    y = old.proj(torch.cat(heads, -1))
    return y * gates.flatten(2) if position == "projected" else y


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(
    ("per", "shared"), [("channel", False), ("head", False), ("channel", True), ("head", True)]
)
def test_gates_stand_where_they_say(position, per, shared):
    network = BASES["vit"]()
    old = copy.deepcopy(filled(network)).blocks[1].attn
    GatedAttention(position, per=per, shared=shared, layers=(1,)).apply(network)
    attention, x = network.blocks[1].attn.double(), tokens()
    with torch.no_grad():
        attention.gates.gate.weight.normal_()
    scores = x @ attention.gates.gate.weight.T
    assert scores.shape[-1] == (1 if shared else 3) * (8 if per == "channel" else 1)
    wide = scores.unflatten(-1, (1 if shared else 3, -1)).expand(-1, -1, 3, 8)
    torch.testing.assert_close(
        attention(x), by_definition(old, torch.sigmoid(wide), x, position), rtol=1e-11, atol=1e-11
    )
    others = [p for p in POSITIONS if p != position]
    for other in others:  # the place matters
        assert not torch.allclose(attention(x), by_definition(old, torch.sigmoid(wide), x, other))


def test_closed_half_and_open():
    bare = filled(BASES["registers"]())
    old, x = bare.blocks[0].attn, tokens()
    plain = old.proj(torch.zeros_like(x)), old(x)
    for bias, expected in (
        (40.0, plain[1]),
        (-800.0, plain[0]),
        (None, plain[0] + (plain[1] - plain[0]) / 2),
    ):
        network = GatedAttention(bias=bias).apply(copy.deepcopy(bare))
        with torch.no_grad():
            network.blocks[0].attn.gates.gate.weight.zero_()
        torch.testing.assert_close(network.blocks[0].attn(x), expected, rtol=1e-11, atol=1e-11)
    opened = GatedAttention(bias=40.0).apply(copy.deepcopy(bare))
    torch.testing.assert_close(opened(images().double()), bare(images().double()), rtol=1e-9, atol=1e-9)


def test_a_gate_per_head_is_one_per_channel_repeated():
    wide, narrow = (HeadGate(6, 3, 4, per=per).double() for per in ("channel", "head"))
    with torch.no_grad():
        narrow.gate.weight.normal_()
        wide.gate.weight.copy_(narrow.gate.weight.repeat_interleave(4, 0))
    x, y = torch.randn(2, 5, 6, dtype=torch.double), torch.randn(2, 5, 3, 4, dtype=torch.double)
    torch.testing.assert_close(wide(x, y), narrow(x, y))
    assert torch.autograd.gradcheck(wide, (x.requires_grad_(), y.requires_grad_()))


def test_forms_and_activations():
    x, y = torch.randn(2, 5, 6), torch.randn(2, 5, 3, 4)
    gate = HeadGate(6, 3, 4, add=True)
    scores = gate.gate(x).unflatten(-1, (3, 4))
    torch.testing.assert_close(gate(x, y), y + F.silu(scores))
    gate = HeadGate(6, 3, 4, activation="ns-sigmoid")
    scores = gate.gate(x).unflatten(-1, (3, 4))
    torch.testing.assert_close(gate(x, y), y * (0.5 + torch.sigmoid(scores) / 2))
    gate = HeadGate(6, 3, 4, depends=False)
    assert gate.gate.shape == (12,)
    torch.testing.assert_close(gate(x, y), y / 2)
    assert HeadGate(6, 3, 4).gate.bias is None


def test_causal_and_masked_attention_pass_through():
    network = GatedAttention(bias=40.0).apply(filled(bare := BASES["vit"]())).double()
    del bare
    x = tokens()
    attention = network.blocks[0].attn
    causal = attention(x, is_causal=True)
    changed = x.clone()
    changed[:, -1] += 1
    torch.testing.assert_close(attention(changed, is_causal=True)[:, :-1], causal[:, :-1])
    mask = torch.ones(7, 7, dtype=torch.bool).tril()
    torch.testing.assert_close(attention(x, attn_mask=mask), causal)


def test_what_cannot_be_is_said():
    with pytest.raises(UnknownName, match="unknown position 'g1'"):
        GatedAttention("g1")
    with pytest.raises(UnknownName, match="position"):
        adapter("gated", position="outputs")
    with pytest.raises(UnknownName, match="unknown activation 'relu'"):
        GatedAttention(activation="relu")
    network = GatedAttention(layers=(0,)).apply(BASES["vit"]())
    with pytest.raises(InvalidInput, match="gated has no meaning in a network that holds gated"):
        GatedAttention(layers=(1,)).apply(network)
    own = timm.create_model("vit_tiny_patch16_224", **SMALL)
    own.blocks[2].attn.gate = torch.nn.Linear(24, 24)
    with pytest.raises(InvalidInput, match="the network's attention has gates of its own"):
        GatedAttention().apply(own)


@pytest.mark.parametrize("arguments", [{}, {"depends": False}])
def test_a_tool_may_put_its_own_linear_map_into_a_gate(arguments):
    network = GatedAttention(bias=1.0, **arguments).apply(BASES["vit"]()).eval()
    for block in network.blocks:
        if arguments == {}:
            plain = block.attn.gates.gate
            maps = (torch.nn.Linear(24, 7), torch.nn.Linear(7, plain.out_features))
            block.attn.gates.gate = torch.nn.Sequential(*maps)
    assert network(images()).isfinite().all()
