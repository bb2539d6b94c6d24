"""Gated attention: limits, order and place of gates, both layouts of others' weights, authors' outputs."""

import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.mixers import CausalAttention1d, GatedCausalAttention1d
from qna.mixers.causal.gated import from_fused, to_fused
from qna.parts.head_gate import POSITIONS, Gates
from tests.mixers.causal.test_attention import their_attention
from tests.mixers.contract import randomise

SIZES = {"num_heads": 4, "kv_heads": 2, "head_dim": 6}


def drawn(seed=0, dim=12, **arguments):
    mixer = GatedCausalAttention1d(dim, **{**SIZES, **arguments})
    randomise(mixer, seed)
    return mixer.double().eval()


def bare(mixer):
    """The same without gates."""
    made = CausalAttention1d(12, **SIZES).double()
    made.load_state_dict({k: v for k, v in mixer.state_dict().items() if not k.startswith("gates")})
    return made


def x(n=11, dim=12, seed=1):
    return torch.randn(2, n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fill(tensor, number):
    values = torch.linspace(-1, 1.3, tensor.numel(), dtype=torch.float64) * (5 + number)
    return values.cos().reshape(tensor.shape)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


# of the second and third position, from Qwen3Attention of qiuzh20/gated_attention at 49645df, in float64
AUTHORS = {
    "channel": [
        [
            0.04668851659336498,
            -0.3888413309584997,
            0.30804039471024586,
            0.10782482074404838,
            -0.40640591871398246,
            0.2629277655033777,
            0.16654437987345583,
            -0.4148614768982479,
        ],
        [
            0.2834045167817495,
            -0.40418564712461197,
            0.08532257870379006,
            0.32634827994297766,
            -0.38304085305650815,
            0.023089019982434553,
            0.361977395369932,
            -0.35331072522034035,
        ],
    ],
    "head": [
        [
            0.011941981497491774,
            -0.4034494489258107,
            0.35611350126385327,
            0.07857720786940399,
            -0.4277972580601852,
            0.31169009019865024,
            0.14345123422638678,
            -0.44255658018018046,
        ],
        [
            0.30571449067947903,
            -0.4299368585641774,
            0.08650470420863424,
            0.3510210718320187,
            -0.4067312664124557,
            0.020028319887680543,
            0.3884599985627023,
            -0.37440935246843904,
        ],
    ],
}


@pytest.mark.parametrize("per", AUTHORS)
def test_the_authors_outputs(per):
    mixer = GatedCausalAttention1d(
        8, num_heads=4, kv_heads=2, head_dim=2, qk_norm=True, gates={"per": per}
    ).double()
    state = to_fused(mixer, "authors")
    filled = {name: fill(state[name], number) for number, name in enumerate(sorted(state))}
    mixer.load_state_dict(from_fused(filled, "authors", num_heads=4, kv_heads=2, head_dim=2))
    found = mixer(fill(torch.empty(1, 3, 8), 20))[0, 1:]
    torch.testing.assert_close(found, torch.tensor(AUTHORS[per], dtype=torch.float64), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("dim", "heads", "kv_heads", "head_dim", "turned"), [(12, 4, 2, 8, 4), (20, 3, 3, 6, 6)]
)
def test_it_is_that_of_qwen3_next(dim, heads, kv_heads, head_dim, turned):
    theirs, _ = their_attention(
        "qwen3_next", dim=dim, heads=heads, kv_heads=kv_heads, head_dim=head_dim, cls="Qwen3Next"
    )
    randomise(theirs, 3)
    for norm in (theirs.q_norm, theirs.k_norm):
        # theirs is in single precision whatever the input
        norm.forward = lambda t, norm=norm: (
            t * torch.rsqrt(t.square().mean(-1, keepdim=True) + 1e-6) * (1 + norm.weight)
        )
    mixer = GatedCausalAttention1d(
        dim, num_heads=heads, kv_heads=kv_heads, head_dim=head_dim, rope_dim=turned, qk_norm=True
    ).double()
    state = theirs.state_dict()
    sizes = {"num_heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
    mixer.load_state_dict(from_fused(state, "transformers", **sizes))
    inv = 10_000.0 ** (-torch.arange(0, turned, 2, dtype=torch.float64) / turned)
    at = torch.arange(11)[:, None] * inv
    at = torch.cat([at, at], -1)[None]
    mask = torch.ones(11, 11).tril().bool()[None, None]
    expected, _ = theirs(x(dim=dim), (at.cos(), at.sin()), mask)
    torch.testing.assert_close(mixer(x(dim=dim)), expected, rtol=1e-9, atol=1e-9)
    back = to_fused(mixer, "transformers")
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(back[name], tensor, rtol=1e-12, atol=1e-12)


def test_layouts_are_one_with_as_many_heads_of_keys_and_differ_otherwise():
    for kv_heads, same in ((4, True), (2, False)):
        mixer = drawn(kv_heads=kv_heads)
        one, other = (to_fused(mixer, layout)["q_proj.weight"] for layout in ("authors", "transformers"))
        assert torch.equal(one, other) is same
        assert torch.equal(one.sort(0).values, other.sort(0).values)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("per", ["channel", "head"])
def test_weights_of_zero_halve_what_is_gated(position, per):
    mixer = drawn(gates=Gates(position, per))
    with torch.no_grad():
        mixer.gates.gate.weight.zero_()
    plain = bare(mixer)
    if position in ("query", "key"):
        # half of every score
        plain.heads.query.weight.data /= 2
        close(mixer(x()), plain(x()))
    else:
        close(mixer(x()), plain(x()) / 2)


@pytest.mark.parametrize("position", POSITIONS)
def test_open_gates_change_nothing_and_closed_ones_close(position):
    mixer = drawn(gates=Gates(position, bias=0.0))
    with torch.no_grad():
        mixer.gates.gate.weight.zero_()
        mixer.gates.gate.bias.fill_(60.0)
        close(mixer(x()), bare(mixer)(x()))
        mixer.gates.gate.bias.fill_(-800.0)
        if position in ("query", "key"):
            # scores of 0: the mean of what came before
            v = bare(mixer).project(x(), 0)[2].repeat_interleave(2, 1)
            means = v.cumsum(2) / torch.arange(1, 12)[:, None]
            close(mixer(x()), bare(mixer).joined(means, x()))
        else:
            assert not mixer(x()).any()


def test_gates_of_heads_are_gates_of_channels_that_repeat():
    by_head = drawn(gates={"per": "head"})
    by_channel = drawn()
    state = by_head.state_dict()
    state["gates.gate.weight"] = state["gates.gate.weight"].repeat_interleave(6, 0)
    by_channel.load_state_dict(state)
    close(by_head(x()), by_channel(x()))


def test_gates_stand_before_the_projection():
    mixer = drawn()
    attended = mixer.attend(*mixer.project(x(), 0))
    gates = (x() @ mixer.gates.gate.weight.mT).sigmoid()
    expected = (attended.transpose(1, 2).flatten(2) * gates) @ mixer.out.weight.mT
    close(mixer(x()), expected)
    behind = drawn(gates={"position": "projected"})
    behind.load_state_dict({**mixer.state_dict(), "gates.gate.weight": mixer.gates.gate.weight[:12].detach()})
    assert (behind(x()) - mixer(x())).abs().max() > 1e-3


def test_gates_without_input_are_parameters_and_added_ones_are_added():
    still = drawn(gates={"depends": False})
    gates = still.gates.gate.sigmoid()
    attended = still.attend(*still.project(x(), 0)).transpose(1, 2).flatten(2)
    close(still(x()), (attended * gates) @ still.out.weight.mT)
    added = drawn(gates={"add": True, "activation": "silu"})
    attended = added.attend(*added.project(x(), 0)).transpose(1, 2).flatten(2)
    more = torch.nn.functional.silu(x() @ added.gates.gate.weight.mT)
    close(added(x()), (attended + more) @ added.out.weight.mT)


def test_gates_that_are_never_closed():
    mixer = drawn(gates={"activation": "ns-sigmoid"})
    with torch.no_grad():
        mixer.gates.gate.weight.zero_()
    close(mixer(x()), 0.75 * bare(mixer)(x()))


def test_a_policy_serves_gated_attention_too():
    from qna.parts.kv_cache import KeepWindow

    mixer = drawn()
    state = mixer.policy_state(2, KeepWindow(4))
    with torch.no_grad():
        y, _ = mixer.step(x(), state)
    assert (y - mixer(x())).abs()[:, 4:].max() > 1e-3
    close(y[:, :4], mixer(x())[:, :4])


@pytest.mark.parametrize("position", POSITIONS)
def test_gradients(position):
    mixer = drawn(gates=Gates(position), qk_norm=True)
    assert torch.autograd.gradcheck(mixer, x(4).requires_grad_())


def test_multiply_adds_by_hand():
    plain = CausalAttention1d(12, **SIZES).macs((2, 5, 12))
    assert drawn().macs((2, 5, 12)) == plain + 2 * 5 * 12 * 24
    assert drawn(gates={"per": "head"}).macs((2, 5, 12)) == plain + 2 * 5 * 12 * 4
    assert drawn(gates={"depends": False}).macs((2, 5, 12)) == plain


@pytest.mark.parametrize(
    "arguments",
    [
        {"gates": {"places": "output"}},
        {"rope_dim": 8},
        {"rope_dim": 2, "rope_base": None},
        {"dim": 10, "gates": {"position": "projected"}},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(InvalidInput):
        drawn(**arguments)


def test_unknown_names_name_the_nearest():
    with pytest.raises(UnknownName, match="output"):
        Gates("outptu")
    with pytest.raises(UnknownName, match="authors"):
        to_fused(drawn(), "author")


@pytest.mark.parametrize(
    ("gates", "layout"),
    [({"position": "value"}, "authors"), ({"shared": True}, "authors"), ({"per": "head"}, "transformers")],
)
def test_layouts_without_a_place_for_the_gates_are_refused(gates, layout):
    with pytest.raises(InvalidInput, match="no place"):
        to_fused(drawn(gates=gates), layout)


def test_strange_weights_are_refused_by_name():
    state = to_fused(drawn(), "authors")
    sizes = {"num_heads": 4, "kv_heads": 2, "head_dim": 6}
    with pytest.raises(InvalidInput, match=r"no up_proj\.weight"):
        from_fused({**state, "up_proj.weight": torch.zeros(2, 2)}, "authors", **sizes)
    with pytest.raises(InvalidInput, match="got 24"):
        from_fused({"q_proj.weight": torch.zeros(24, 12)}, "authors", **sizes)
    with pytest.raises(InvalidInput, match="both have a bias"):
        to_fused(drawn(bias=True), "authors")
