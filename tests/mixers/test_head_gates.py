"""Gates on the heads of mixers: every mixer that has heads takes them, or says why not."""

import copy

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.analysis.cost import total_macs
from qna.mixers import MIXERS
from qna.parts.head_gate import HeadGate
from qna.parts.head_router import RoutedHeads
from qna.parts.protocols import GatesHeads
from tests.mixers.contract import a_map, build

# what has heads and no place for gates: kernels of groups that are mixed before they are joined, one position
# for a whole map, and heads of which values or what joins them may be missing. Causal mixers have gates of
# their own, `GatedCausalAttention1d`
WITHOUT = {"ContMix2d", "QnAPool2d", "MinimalAttention1d", "MinimalAttention2d"}
OTHER_POSITIONS = {"QnAUpsample1d", "QnAUpsample2d", "QnAUpsample3d"}
ALL = [name for name, row in MIXERS.items() if row.traits.heads and not row.traits.causal]
GATED = sorted(set(ALL) - WITHOUT - OTHER_POSITIONS)


class Spy(nn.Module):
    """A gate that keeps what it is called with."""

    def __init__(self, factors=None):
        super().__init__()
        self.factors, self.seen = factors, None

    def forward(self, x, y):
        self.seen = x, y
        return y if self.factors is None else y * self.factors[:, None]


def test_who_takes_gates():
    takes = {name for name in ALL if isinstance(build(MIXERS[name]), GatesHeads)}
    assert takes == set(ALL) - WITHOUT
    for name in OTHER_POSITIONS:
        with pytest.raises(InvalidInput, match=rf"{name} takes no gates on its heads: with stride=\(1"):
            build(MIXERS[name]).gate_heads(Spy())
    for name, stride in (("QnA2d", (2, 2)), ("HaloAttention2d", 2)):
        arguments = {**MIXERS[name].example.arguments, "stride": stride}
        if name == "HaloAttention2d":
            arguments |= {"block_size": 4}
        with pytest.raises(InvalidInput, match=rf"{name} takes no gates on its heads: with stride="):
            MIXERS[name].create(8, **arguments).gate_heads(Spy())


@pytest.mark.parametrize("name", GATED)
def test_gates_stand_on_the_heads(name):
    """Open gates change nothing; each head is made of weights of its own, and its gate is its own."""
    mixer, x = build(MIXERS[name]).double(), a_map(MIXERS[name]).double()
    plain = mixer(x)
    spy = Spy()
    mixer.gate_heads(spy)
    assert mixer.head_gate is spy
    torch.testing.assert_close(mixer(x), plain, rtol=1e-12, atol=1e-12)
    given, heads = spy.seen
    assert given is x
    assert heads.shape[:-1] == (*x.shape[:-1], mixer.num_heads)
    # of some projection every head has rows that no other head has
    parameters = [p for p in mixer.parameters() if p.ndim == 2 and p.shape[0] % mixer.num_heads == 0]
    supports = []
    for head in range(mixer.num_heads):
        found = torch.autograd.grad(
            heads[..., head, :].square().sum(), parameters, allow_unused=True, retain_graph=True
        )
        supports.append([None if g is None else g.abs().sum(1) > 0 for g in found])
    apart = []
    for rows in zip(*supports, strict=True):
        if all(r is not None for r in rows):
            counts = torch.stack(rows).sum(0)
            apart.append(bool((counts <= 1).all() and (counts == 1).sum() >= len(counts) // 2))
    assert any(apart)
    # what comes out is the sum of what the heads bring
    outputs = []
    for factors in torch.eye(mixer.num_heads, dtype=torch.float64):
        spy.factors = factors
        outputs.append(mixer(x))
    spy.factors = torch.zeros(mixer.num_heads, dtype=torch.float64)
    nothing = mixer(x)
    total = nothing + sum(each - nothing for each in outputs)
    torch.testing.assert_close(total, plain, rtol=1e-10, atol=1e-10)
    assert all((each - nothing).abs().max() > 1e-6 for each in outputs)


@pytest.mark.parametrize("name", ["QnA1d", "QnA2d", "QnA3d"])
def test_heads_of_learned_queries_are_those_of_their_queries(name):
    """Their values lie with heads fastest: groups of channels one after the other would mix all heads."""
    mixer, x, spy = build(MIXERS[name]).double(), a_map(MIXERS[name]).double(), Spy()
    mixer.gate_heads(spy)
    mixer(x)
    for head in range(mixer.num_heads):
        (grad,) = torch.autograd.grad(
            spy.seen[1][..., head, :].square().sum(), mixer.project.query, retain_graph=True
        )
        assert grad.abs().sum((0, 2)).nonzero().flatten().tolist() == [head]


@pytest.mark.parametrize("name", GATED)
def test_learned_gates_around_any_mixer(name):
    mixer, x = build(MIXERS[name]), a_map(MIXERS[name])
    plain = mixer(x)
    bare = set(mixer.state_dict())
    before = total_macs(mixer, x.shape)
    mixer.gate_heads(RoutedHeads(mixer.dim, mixer.num_heads, shared=1, routed=mixer.num_heads - 1))
    assert set(mixer.state_dict()) - bare == {"head_gate.wg.weight", "head_gate.wg_0.weight"}
    # a router for two heads of which one is shared has one output, and one for the two kinds two
    positions = x[..., 0].numel()
    assert total_macs(mixer, x.shape) == before + positions * mixer.dim * (mixer.num_heads - 1 + 2)
    y = mixer(x)
    assert not torch.equal(y, plain)
    twin = copy.deepcopy(mixer)
    assert torch.equal(twin(x), y)
    with torch.no_grad():
        for p in mixer.head_gate.parameters():
            p.zero_()
    torch.testing.assert_close(mixer(x), plain, rtol=1e-5, atol=1e-5)


def test_gates_of_both_kinds_count_their_products():
    x = torch.randn(2, 5, 7, 8)
    for gate, width in ((HeadGate(8, 2, 4), 8), (HeadGate(8, 2, 4, per="head"), 2)):
        mixer = MIXERS["FullAttention2d"].create(8, num_heads=2)
        before = total_macs(mixer, x.shape)
        mixer.gate_heads(gate)
        assert total_macs(mixer, x.shape) == before + 2 * 35 * 8 * width
        assert mixer(x).shape == x.shape
