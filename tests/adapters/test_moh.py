"""MoH: the authors' attention, closed forms of gates and losses, heads that are left out, what is refused."""

import copy
import json
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import qna.adapters._parts.vit
import qna.adapters.moh
from qna._core.errors import InvalidInput, UnknownName
from qna._core.with_losses import WithLosses
from qna.adapters import MoH, SwapMixer, adapter, applied
from qna.adapters.moh import RoutedSelfAttention, head_use
from qna.parts.head_router import HeadRouter, NormRouter, balance_loss
from tests.adapters.bases import BASES, SMALL
from tests.adapters.contract import images
from tests.models.golden import rule
from tests.models.golden_state import drawn_state

GOLDEN = json.loads((Path(__file__).parents[1] / "models" / "golden" / "moh.json").read_text())
ViTAttention = qna.adapters._parts.vit.timm.models.vision_transformer.Attention
# tokens of a batch that are enough for heads to be left out
MANY = {**SMALL, "img_size": 64}


def filled(network, scale=0.2):
    """No tensor at the value that it has by itself."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return network.double().eval()


def routers(network):
    return [m for m in network.modules() if isinstance(m, HeadRouter | NormRouter)]


def masked(network):
    """The network with all heads computed."""
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if isinstance(module, RoutedSelfAttention):
            module._may_skip = lambda x: False
    return twin


# the authors' attention


@pytest.mark.parametrize("case", ["vit", "vit-routed", "vit-shared", "norm"])
def test_attention_of_the_authors(case):
    dim, heads, shared, routed = GOLDEN[case]["sizes"]
    state = {n: t.double() for n, t in drawn_state(GOLDEN[case]["shapes"]).items()}
    attention = ViTAttention(dim, heads, qkv_bias=True)
    if case == "norm":
        router = NormRouter(heads, shared=shared, routed=routed)
        for part in ("weight", "bias"):
            three = [state.pop(f"{name}_proj.{part}") for name in "qkv"]
            state |= {f"qkv.{part}": torch.cat(three), f"proj.{part}": state.pop(f"o_proj.{part}")}
    else:
        router = HeadRouter(dim, heads, shared=shared, routed=routed, balanced=True)
    ours = RoutedSelfAttention(attention, router).double().eval()
    ours.load_state_dict({f"router.{n}" if n.startswith("wg") else n: t for n, t in state.items()})
    for output in GOLDEN[case]["outputs"]:
        x = torch.from_numpy(rule.images(output["tokens"], dim)[:, 0]).double()
        for y in (ours.eval()(x), ours._masked(x), ours.train()(x)):
            error = (y[:, -1] - torch.tensor(output["last"], dtype=torch.float64)).abs().max().item()
            assert error < 1e-9 * output["deviation"]
            assert y.std().item() == pytest.approx(output["deviation"], rel=1e-9)
        left = router.take()
        assert len(left) == ("balance" in output)
        if left:
            # they average choices in float32
            assert left[0].item() == pytest.approx(output["balance"], rel=3e-7)


# gates


@pytest.mark.parametrize("base", ["vit", "distilled", "registers"])
@pytest.mark.parametrize(("shared", "routed"), [(1, 2), (0, 3), (3, 0)])
def test_routers_of_zeros_that_choose_all_heads_change_nothing(base, shared, routed):
    bare = filled(BASES[base]())
    network = MoH(shared, routed).apply(copy.deepcopy(bare))
    with torch.no_grad():
        for router in routers(network):
            for p in router.parameters():
                p.zero_()
    torch.testing.assert_close(network(images().double()), bare(images().double()), rtol=1e-12, atol=1e-12)
    by_norm = MoH(shared, routed, router="norm").apply(copy.deepcopy(bare))
    torch.testing.assert_close(by_norm(images().double()), bare(images().double()), rtol=1e-12, atol=1e-12)
    assert by_norm.state_dict().keys() == bare.state_dict().keys()


# the balance loss


def test_the_loss_is_the_weighted_mean_over_layers_of_all_tokens():
    network = filled(MoH(1, 1, balance=0.3).apply(BASES["registers"]())).train()
    inputs = []
    for router in routers(network):
        router.register_forward_hook(lambda m, x, y: inputs.append((m, x[0])))
    output = network(images().double())
    assert isinstance(output, WithLosses)
    expected = []
    for router, x in inputs:
        p = router.wg(x).softmax(-1)
        assert x.shape[1] == 5 + 16
        expected.append(balance_loss(p, (p == p.amax(-1, keepdim=True)).double()))
    assert len(expected) == 4
    torch.testing.assert_close(output.losses["balance"], 0.3 * sum(expected) / 4)
    assert isinstance(network.eval()(images().double()), torch.Tensor)
    for chosen in (MoH(1, 1, balance=0), MoH(3, 0)):
        assert isinstance(chosen.apply(BASES["vit"]()).train()(images()), torch.Tensor)


def test_a_block_that_is_computed_again_leaves_nothing():
    torch.manual_seed(0)
    network = MoH(1, 1).apply(BASES["vit"]()).train()
    first = network(images()).losses["balance"]
    network.set_grad_checkpointing()
    output = network(images())
    (output.output.sum() + output.losses["balance"]).backward()
    torch.testing.assert_close(network(images()).losses["balance"], first)


def test_layers_may_have_other_counts():
    network = MoH(2, 1, balance=1.0, layers=(0, 1)).apply(BASES["vit"]())
    MoH(0, 2, balance=0.5, router="norm", layers=(3,)).apply(network)
    counts = [(type(r).__name__, r.shared, r.routed) for r in routers(network)]
    assert counts == [("HeadRouter", 2, 1), ("HeadRouter", 2, 1), ("NormRouter", 0, 2)]
    assert len(applied(network)) == 2
    found = network.train()(images()).losses["balance"].item()
    # one routed head is always chosen, and l is then 1; two of three are l = 2 where they are even
    assert found == pytest.approx(1.0 + 0.5 * 2, rel=0.2)
    with pytest.raises(InvalidInput, match="moh: block 0 has a router"):
        MoH(1, 1, layers=(0,)).apply(network)


# gradients


def test_a_gradient_reaches_the_routers_through_the_gates():
    network = MoH(1, 1, balance=0).apply(filled(BASES["vit"]())).double().train()
    network(images().double()).square().mean().backward()
    for router in routers(network):
        # a head that is chosen alone has the gate 1, whatever its probability
        assert router.wg_0.weight.grad.any()
    wide = timm.create_model("vit_tiny_patch16_224", **{**SMALL, "num_heads": 6})
    network = MoH(1, 2, balance=0).apply(filled(wide)).double().train()
    network(images().double()).square().mean().backward()
    assert all(router.wg.weight.grad.any() for router in routers(network))


def test_a_gradient_goes_straight_through_the_choice_by_length():
    bare = filled(timm.create_model("vit_tiny_patch16_224", **{**SMALL, "num_heads": 6}))
    network = MoH(0, 2, balance=0, router="norm").apply(copy.deepcopy(bare)).train()
    attention, x = network.blocks[1].attn, torch.randn(2, 5, 24, dtype=torch.float64)
    y = attention(x)
    y.square().sum().backward()
    by_choice = attention.qkv.weight.grad.clone()
    # of masks that are constant the lengths of queries get none
    q = attention.qkv(x)[..., :24].unflatten(-1, (6, 4))
    mask = attention.router.eval()(q).detach()
    attention.router = _Constant(mask)
    attention.qkv.weight.grad = None
    attention._masked = lambda x: RoutedSelfAttention._masked(attention, x)
    plain = _with_gates(attention, x, mask)
    torch.testing.assert_close(plain, y)
    plain.square().sum().backward()
    assert not torch.allclose(attention.qkv.weight.grad[:24], by_choice[:24])
    torch.testing.assert_close(attention.qkv.weight.grad[24:], by_choice[24:])


class _Constant(nn.Module):
    def __init__(self, gates):
        super().__init__()
        self.gates = gates

    def forward(self, x):
        return self.gates


def _with_gates(attention, x, gates):
    q, k, v = attention.qkv(x).unflatten(-1, (3, 6, 4)).permute(2, 0, 3, 1, 4)
    y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2) * gates[..., None]
    return attention.proj(y.flatten(2))


# heads that are left out


def collapsed(network, open_heads):
    """All tokens choose alike: the biases that routers lack come with a channel that is always 1."""
    for block in network.blocks:
        with torch.no_grad():
            block.norm1.weight[0], block.norm1.bias[0] = 0, 1
            wg = block.attn.router.wg.weight
            wg[:, 0] = -50
            wg[[h - block.attn.router.shared for h in open_heads], 0] = 50
    return network


@pytest.mark.parametrize("router", ["learned", "norm"])
@pytest.mark.parametrize("base", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_leaving_heads_out_gives_what_masking_gives(router, base):
    bare = filled(timm.create_model(base, **{**MANY, "num_heads": 6}))
    network = MoH(1, 2, router=router).apply(bare).double()
    filled(network)
    if router == "learned":
        collapsed(network, (2, 4))
    else:
        with torch.no_grad():
            for block in network.blocks:
                # long queries of two heads
                for head in (2, 4):
                    block.attn.qkv.weight[4 * head : 4 * head + 4] *= 50
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = network(x)
        torch.testing.assert_close(found, masked(network)(x), rtol=1e-11, atol=1e-11)
        use = head_use(network, x)
    assert list(use) == [f"blocks.{i}.attn.router" for i in range(4)]
    for share in use.values():
        assert share.tolist() == [1, 0, 1, 0, 1, 0]


def test_gradients_are_those_of_masking():
    bare = filled(timm.create_model("vit_tiny_patch16_224", **{**MANY, "num_heads": 6}))
    network = collapsed(filled(MoH(1, 2).apply(bare)), (2, 4))
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = []
    for each in (network, masked(network)):
        each(x).square().sum().backward()
        found.append({n: p.grad for n, p in each.named_parameters()})
    # of a head that was left out as of one whose gate is 0: none
    rows = found[0]["blocks.3.attn.qkv.weight"].unflatten(0, (3, 6, 4)).abs().sum((0, 2, 3))
    assert (rows > 0).tolist() == [True, False, True, False, True, False]
    for name, grad in found[0].items():
        torch.testing.assert_close(grad, found[1][name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("shared", "routed"), [(1, 1), (0, 2), (2, 1), (1, 3)])
@pytest.mark.parametrize("router", ["learned", "norm"])
def test_heads_attend_with_the_queries_of_their_own_tokens(shared, routed, router, monkeypatch):
    base = timm.create_model("vit_tiny_patch16_224", **{**MANY, "num_heads": 6})
    network = filled(MoH(shared, routed, router=router).apply(base))
    x = torch.randn(3, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    asked = counting_queries(monkeypatch)
    with torch.no_grad():
        found = network(x)
        queries = sum(asked)
        asked.clear()
        torch.testing.assert_close(found, masked(network)(x), rtol=1e-11, atol=1e-11)
    assert sum(asked) == 4 * 3 * 6 * 65
    assert 4 * 3 * (shared + routed) * 65 <= queries
    if (shared, routed) != (1, 3):
        assert queries < sum(asked)


def counting_queries(monkeypatch):
    """Queries of all heads and images, a number for each attention that is computed."""
    asked, attended = [], qna.adapters.moh.attended

    def counted(attention, q, k, v):
        asked.append(q[..., 0].numel())
        assert k.shape == v.shape
        return attended(attention, q, k, v)

    monkeypatch.setattr(qna.adapters.moh, "attended", counted)
    return asked


def test_as_many_queries_as_the_busiest_head_has(monkeypatch):
    torch.manual_seed(0)
    attention = RoutedSelfAttention(ViTAttention(24, 4), NormRouter(4, shared=1, routed=1)).eval()
    q, k, v = torch.randn(3, 2, 4, 10, 6, dtype=torch.float64)
    asked = counting_queries(monkeypatch)
    whole = qna.adapters.moh.attended(attention, q, k, v)
    open_for = torch.zeros(2, 10, 4, dtype=torch.bool)
    open_for[..., 0] = True
    open_for[0, [1, 4, 9], 1] = open_for[1, [0, 2, 3, 5, 6], 2] = open_for[1, [7, 8], 3] = True
    for busy, expected in (((), [2 * 3 * 5, 2 * 10]), ((2, 7), [2 * 1 * 2, 2 * 3 * 10])):
        # a head that speaks for seven of ten is computed whole, and so is what stands before it
        if busy:
            open_for[0, : busy[1], busy[0]] = True
        asked.clear()
        y = attention._of_own_queries(q, k, v, open_for)
        assert sorted(asked) == sorted(expected)
        spoken = open_for.transpose(1, 2)[..., None]
        torch.testing.assert_close(y * spoken, whole * spoken, rtol=1e-12, atol=1e-12)


def test_heads_that_differ_by_token_are_told():
    network = filled(MoH(1, 1).apply(timm.create_model("vit_tiny_patch16_224", **MANY)))
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(x), masked(network)(x), rtol=1e-11, atol=1e-11)
        use = head_use(network, x)
    assert all(share[0] == 1 for share in use.values())
    assert all(share[1:].sum().item() == pytest.approx(1) for share in use.values())
    with pytest.raises(InvalidInput, match="the network holds no router of heads; apply moh first"):
        head_use(BASES["vit"](), x)
    assert all(r.noted is None for r in routers(network))


class Products(TorchDispatchMode):
    """Counts products and sums; torch's own counter hangs hooks on modules, which are then all called."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def counted(attention, x):
    with Products() as counter, torch.no_grad():
        attention(x)
    return counter.total


@pytest.mark.parametrize("router", ["learned", "norm"])
def test_heads_that_nobody_chose_cost_nothing(router):
    torch.manual_seed(0)
    n, dim, heads = 100, 24, 6
    network = MoH(1, 2, router=router).apply(
        timm.create_model("vit_tiny_patch16_224", **{**SMALL, "num_heads": heads})
    )
    attention = network.eval().blocks[0].attn
    with torch.no_grad():
        # the tokens have a channel that is always 1
        x = torch.randn(1, n, dim)
        x[..., 0] = 1
        if router == "learned":
            attention.router.wg.weight[:, 0] = torch.tensor([0.0, 0.0, 0.0, 50.0, 50.0])
        else:
            attention.qkv.weight[: 4 * dim // heads] *= 1e-3
            attention.qkv.weight[4 * dim // heads : dim] *= 50
    # two products for each multiply-add; attention itself is not counted of the fused kernel everywhere
    routing = 2 * n * dim * (5 + 2) if router == "learned" else 0
    whole, kept = 2 * n * dim * dim, 3 / heads
    queries = whole if router == "norm" else kept * whole
    attended = 2 * 2 * n * n * dim * kept
    expected = routing + queries + 3 * kept * whole
    found = counted(attention, x)
    assert found in (expected, expected + attended)
    # and a mask saves nothing
    attention._may_skip = lambda x: False
    assert counted(attention, x) in (routing + 4 * whole, routing + 4 * whole + 2 * 2 * n * n * dim)


def test_all_heads_are_computed_where_something_looks_on():
    network = MoH(1, 1).apply(timm.create_model("vit_tiny_patch16_224", **MANY)).eval()
    attention, x = network.blocks[0].attn, torch.randn(1, 70, 24)
    assert attention._may_skip(x)
    assert not attention._may_skip(x[:, :63])
    assert not attention._may_skip(x.to("meta"))
    assert not attention.train()._may_skip(x)
    attention.eval()
    seen = []
    hook = attention.qkv.register_forward_hook(lambda m, x, y: seen.append(y.shape[-1]))
    assert not attention._may_skip(x)
    attention(x)
    assert seen == [72]
    hook.remove()
    assert attention._may_skip(x)
    other = torch.randn(1, 3, 64, 64)
    exported = torch.export.export(network, (torch.randn(1, 3, 64, 64),)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(other), network(other))
    normed = ViTAttention(24, 3, scale_norm=True, norm_layer=nn.LayerNorm)
    for kind in (normed, ViTAttention(24, 3, gated=True), ViTAttention(24, 3)):
        routed = RoutedSelfAttention(kind, HeadRouter(24, 3, shared=1, routed=1)).eval()
        assert routed._may_skip(x) == (isinstance(kind.norm, nn.Identity) and kind.gate is None)
        assert routed(x).shape == x.shape


# other networks, and what is refused


def test_mixers_of_other_networks_get_gates():
    network = MoH(1, 2).apply(BASES["qna_vit"]())
    gates = routers(network)
    assert [(r.heads, r.shared, r.routed) for r in gates] == [(4, 1, 2), (8, 1, 2), (8, 1, 2), (8, 1, 2)]
    told = applied(network)[0].told
    assert [sentence.split(":")[0] for sentence in told] == ["stages.1.0.mixer", "stages.2.0.mixer"]
    assert all("with stride=(2, 2)" in sentence for sentence in told)
    use = head_use(network.eval(), torch.randn(2, 3, 32, 32))
    assert len(use) == 4
    assert all(share.sum().item() == pytest.approx(3) for share in use.values())
    assert set(network.train()(torch.randn(2, 3, 32, 32)).losses) == {"balance"}
    with pytest.raises(InvalidInput, match=r"moh: layer 1, stages.1.0.mixer, takes no gates on its heads"):
        MoH(1, 1, layers=(1,)).apply(BASES["qna_vit"]())
    with pytest.raises(InvalidInput, match=r"moh: layer 0, stages.0.0.mixer, has a gate on its heads"):
        MoH(1, 1, layers=(0,)).apply(network)
    with pytest.raises(InvalidInput, match='router="norm" reads the queries'):
        MoH(1, 1, router="norm").apply(BASES["qna_vit"]())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((3, 1), r"moh: block 0: of 3 heads, 3 shared and 1 routed cannot be active"),
        ((0, 0), r"moh: block 0: of 3 heads, 0 shared and 0 routed cannot be active"),
        ((2, 0), r"moh: block 0: of 3 heads 2 are shared, and nobody could choose the others: routed is 0"),
        ((-1, 2), r"moh: block 0: shared and routed heads must be integers of at least 0, got -1 and 2"),
    ],
)
def test_counts_that_do_not_fit(arguments, told):
    network = BASES["vit"]()
    with pytest.raises(InvalidInput, match=told):
        MoH(*arguments).apply(network)
    assert not applied(network)


def test_options_that_are_none():
    with pytest.raises(UnknownName, match="learned"):
        MoH(1, 1, router="learnt")
    with pytest.raises(InvalidInput, match=r"moh: balance must be at least 0 and finite, got -1\.0"):
        MoH(1, 1, balance=-1)
    with pytest.raises(InvalidInput, match="layers must be different block numbers from 0 to 3"):
        MoH(1, 1, layers=(4,)).apply(BASES["vit"]())
    with pytest.raises(InvalidInput, match=r"shared_heads"):
        adapter("moh", routed_heads=1)
    with pytest.raises(InvalidInput, match="moh has no meaning in a network that holds swap_mixer"):
        MoH(1, 1).apply(SwapMixer("Identity2d", of="attention").apply(BASES["vit"]()))
    network = MoH(1, 1).apply(BASES["vit"]())
    with pytest.raises(InvalidInput, match="moh takes no mask of tokens"):
        network.blocks[0].attn(torch.randn(1, 5, 24), is_causal=True)
