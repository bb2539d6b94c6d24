"""Sparsifiner: the authors' numbers, limits that change nothing, which keys are seen and what is computed."""

import copy
import json
import math
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput, UnknownName
from qna._core.with_losses import WithLosses
from qna.adapters import Sparsifiner, adapter
from qna.adapters._parts import chosen_keys
from qna.adapters._parts.chosen_keys import all_masked, largest, only_chosen
from qna.adapters.sparsifiner import SparseAttention
from qna.analysis.cost import total_macs
from tests.adapters.bases import BASES, SMALL
from tests.adapters.contract import images
from tests.models.golden import rule

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sparsifiner.json").read_text())


def theirs(case, **further):
    """Our network on the weights of a golden case, in float64, and images."""
    golden = GOLDEN[case]
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=tuple(golden["pixels"]), patch_size=8, embed_dim=24,
        depth=golden["depth"], num_heads=3, mlp_ratio=2, num_classes=7,
    )  # fmt: skip
    adapter("sparsifiner", **golden["arguments"], **further).apply(network)
    drawn = {
        n: torch.from_numpy(rule.torch_tensor(n, tuple(t.shape))) for n, t in network.state_dict().items()
    }
    network.load_state_dict(drawn)
    return network.double(), torch.from_numpy(rule.images(*golden["pixels"])).double()


def exact(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def attentions(network):
    return [m for m in network.modules() if isinstance(m, SparseAttention)]


def gradients(network, part=""):
    named = network.blocks[1].named_parameters()
    return {n: p.grad.abs().sum().item() for n, p in named if p.grad is not None and part in n}


@pytest.mark.parametrize("case", GOLDEN)
def test_what_the_authors_network_computes(case):
    golden = GOLDEN[case]
    network, x = theirs(case)
    shapes = {n: list(t.shape) for n, t in network.blocks[1].state_dict().items()}
    # theirs names a shared table twice
    assert shapes == {n: s for n, s in golden["block"].items() if "back" not in n or n in shapes}
    found = network.eval()(x).detach()
    assert (found - exact(golden["logits"])).abs().max() < 1e-9 * golden["deviation"]
    with torch.enable_grad():  # by the other way of computing it
        found = network(x.requires_grad_())
    assert found.requires_grad
    assert (found.detach() - exact(golden["logits"])).abs().max() < 1e-9 * golden["deviation"]


@pytest.mark.parametrize("case", [case for case in GOLDEN if case != "pruned"])
def test_which_keys_the_authors_network_sees(case):
    network, x = theirs(case)
    seen = []
    for attention in attentions(network.eval()):
        attention.register_forward_pre_hook(lambda m, given: seen.append(m.chosen_keys(*given)))
    network(x)
    counts = [torch.bincount(chosen.flatten(), minlength=m.tokens).tolist() for chosen, m in
              zip(seen, attentions(network), strict=True)]  # fmt: skip
    assert counts == GOLDEN[case]["seen"]


@pytest.mark.parametrize("case", GOLDEN)
def test_losses_and_gradients_of_the_authors_second_phase(case):
    golden = GOLDEN[case]["tuned"]
    network, x = theirs(case, reconstruction_epochs=0)
    output = network.train()(x)
    assert (output.output - exact(golden["logits"])).abs().max() < 1e-9
    ours = {name: loss.item() for name, loss in output.losses.items()}
    labels = torch.tensor([2, 5])
    ours["cls_loss"] = F.cross_entropy(output.output, labels).item()
    names = {"cls_distill_loss": "logits_distillation", "token_distill_loss": "token_distillation"}
    for name, value in golden["losses"].items():
        assert ours[names.get(name, name)] == pytest.approx(value, rel=1e-9)
    if golden["gradients"]:
        (F.cross_entropy(output.output, labels) + sum(output.losses.values())).backward()
        assert gradients(network) == pytest.approx(golden["gradients"], rel=1e-9)
        assert not any("mask_predictor" in name for name in golden["gradients"])


@pytest.mark.parametrize("case", GOLDEN)
def test_loss_and_gradients_of_the_authors_first_phase(case):
    golden = GOLDEN[case]["fitted"]
    network, x = theirs(case)
    output = network.train()(x)
    assert output.losses.keys() == {"attention_reconstruction"}
    assert not output.output.requires_grad
    assert output.losses["attention_reconstruction"].item() == pytest.approx(golden["loss"], rel=1e-9)
    sum(output.losses.values()).backward()
    # a table of theirs that is shared has one gradient by two names
    assert gradients(network) == pytest.approx(golden["gradients"], rel=1e-9)


def filled(network):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return network.double().eval()


def test_parameters_are_those_of_the_paper_s_size():
    with torch.device("meta"):
        network = Sparsifiner().apply(timm.create_model("deit_small_patch16_224"))
    counts = [sum(p.numel() for p in a.mask_predictor.parameters()) for a in attentions(network)]
    assert counts == [16_768] * 12
    assert sum(counts) == 201_216
    assert sum(p.numel() for p in network.parameters()) == 22_251_880
    assert network.blocks[0].attn.mask_predictor.proj_n.shape == (197, 32)
    assert Sparsifiner().kept(197) == 50


@pytest.mark.parametrize("base", ["vit", "distilled", "registers"])
def test_limits_that_change_nothing(base):
    bare = filled(BASES[base]()).float()
    same = Sparsifiner(keep_rate=1.0, reduce_tokens=3).apply(copy.deepcopy(bare))
    assert torch.equal(same(images()), bare(images()))
    assert all(torch.equal(same.state_dict()[name], t) for name, t in bare.state_dict().items())
    fitting = same.train()(images())
    torch.testing.assert_close(fitting.output, bare.train()(images()))
    few = Sparsifiner(keep_rate=0.3, reduce_tokens=3).apply(copy.deepcopy(bare))
    assert not torch.allclose(few.eval()(images()), bare.eval()(images()))


def by_definition(attention, x):
    """Query by query and head by head, of the parts of `attention`."""
    p, heads, d = attention.mask_predictor, attention.num_heads, attention.head_dim
    tokens, prefix = x.shape[1], p.prefix
    count = math.ceil(attention.config.keep_rate * tokens)
    q, k, v = (attention.qkv(x).chunk(3, -1)[i].unflatten(-1, (heads, d)) for i in range(3))
    basis = p.proj_back_n.abs()
    basis = torch.where(basis > p.threshold, basis, 0.0)
    rows = []
    for b in range(len(x)):
        for i in range(tokens):
            row = []
            for h in range(heads):
                keys = range(tokens)
                if i >= prefix:
                    down = sum(torch.outer(p.proj_c_k(k[b, j, h]), p.proj_n[j]) for j in range(tokens))
                    coefficients = ((p.proj_c_q(q[b, i, h]) @ down) * heads**-0.5).softmax(0)
                    least = coefficients.sort(descending=True).values[:8][-1]
                    coefficients = torch.where(coefficients >= least, coefficients, 0.0)
                    estimate = basis @ coefficients
                    keys = estimate.argsort(descending=True)[:count].tolist()
                scores = torch.stack([q[b, i, h] @ k[b, j, h] / math.sqrt(d) for j in keys]).softmax(0)
                row.append(sum(s * v[b, j, h] for s, j in zip(scores, keys, strict=True)))
            rows.append(torch.cat(row))
    return attention.proj(torch.stack(rows).view(x.shape))


@pytest.mark.parametrize("base", ["vit", "distilled", "registers"])
def test_attention_is_its_definition(base):
    network = Sparsifiner(keep_rate=0.3, reduce_tokens=2).apply(BASES[base]())
    attention = filled(network).blocks[1].attn
    x = torch.randn(1, attention.tokens, 24, dtype=torch.double, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = by_definition(attention, x)
        torch.testing.assert_close(attention(x), expected, rtol=1e-10, atol=1e-10)
    attention.requires_grad_(False)
    torch.testing.assert_close(attention(x.requires_grad_()).detach(), expected, rtol=1e-10, atol=1e-10)


def test_true_attention_chooses_its_own_largest_entries():
    """With maps that change nothing, and the true scale, the estimate is attention itself."""
    chosen = Sparsifiner(
        keep_rate=0.3,
        reduce_tokens=1,
        reduce_channels=1,
        coefficients=99,
        basis_threshold=0.0,
        scale="channels",
    )
    network = chosen.apply(filled(BASES["vit"]())).double()
    attention, x = network.blocks[0].attn, torch.randn(2, 17, 24, dtype=torch.double)
    p = attention.mask_predictor
    with torch.no_grad():
        for projection in (p.proj_c_q, p.proj_c_k):
            projection.weight.copy_(torch.eye(8))
            projection.bias.zero_()
        for table in (p.proj_n, p.proj_back_n):
            table.copy_(torch.eye(17))
    q, k, _ = attention.qkv(x).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / math.sqrt(8)).softmax(-1)[:, :, 1:]
    torch.testing.assert_close(p.fitted(q, k), weights)
    found = attention.chosen_keys(x).sort(-1).values
    assert torch.equal(found, weights.topk(math.ceil(0.3 * 17)).indices.sort(-1).values)


def test_a_larger_rate_sees_what_a_smaller_one_did_and_rows_are_whole():
    bare, x = filled(BASES["distilled"]()), torch.randn(2, 18, 24, dtype=torch.double)
    before = None
    for rate in (0.05, 0.3, 0.6, 0.95, 1.0):
        torch.manual_seed(0)
        network = Sparsifiner(keep_rate=rate, reduce_tokens=2).apply(copy.deepcopy(bare)).double()
        found = network.blocks[0].attn.chosen_keys(x)
        seen = torch.zeros(2, 3, 16, 18, dtype=torch.bool).scatter_(-1, found, True)
        assert (seen.sum(-1) == math.ceil(rate * 18)).all()
        assert before is None or (seen | ~before).all()
        before = seen


@pytest.mark.parametrize(("rows", "width", "count"), [(40, 30, 7), (6, 5, 1), (3, 4, 4), (2, 300, 299)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_largest_are_chosen_in_every_way(rows, width, count, dtype):
    g = torch.Generator().manual_seed(1)
    scores = torch.stack([torch.randperm(width, generator=g) for _ in range(rows)]).to(dtype)[None]
    expected = scores.float().topk(count).indices.sort(-1).values
    assert torch.equal(largest(scores, count).sort(-1).values, expected)
    assert torch.equal(torch.compile(largest, backend="eager")(scores, count).sort(-1).values, expected)


def test_of_equal_numbers_some_are_chosen_and_none_twice():
    scores = torch.tensor([[1.0, 0.0, 0.0, 0.0, 2.0], [3.0, 3.0, 3.0, 3.0, 3.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    found = largest(scores, 3)
    assert [len({*row}) for row in found.tolist()] == [3, 3, 3]
    assert {0, 4} < {*found[0].tolist()}
    assert {*found[2].tolist()} == {0, 1, 2}
    assert largest(torch.full((2, 4), float("nan")), 2).shape == (2, 2)
    assert largest(torch.empty(0, 4), 2).shape == (0, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_both_ways_give_the_same(dtype):
    g = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 3, n, d, generator=g, dtype=dtype) for n, d in ((5, 8), (9, 8), (9, 6)))
    chosen = torch.rand(2, 3, 5, 9, generator=g).topk(4).indices
    wanted = torch.zeros(2, 3, 5, 6, dtype=dtype)
    for b in range(2):
        for h in range(3):
            for i in range(5):
                keys = chosen[b, h, i]
                wanted[b, h, i] = (k[b, h, keys] @ q[b, h, i] * 0.7).softmax(0) @ v[b, h, keys]
    bound = 1e-12 if dtype is torch.float64 else 1e-5
    for way in (all_masked, only_chosen):
        torch.testing.assert_close(way(q, k, v, chosen, 0.7), wanted, rtol=bound, atol=bound)


def test_inference_computes_chosen_products_alone(monkeypatch):
    ways = []
    for name in ("only_chosen", "all_masked"):
        way = getattr(chosen_keys, name)
        monkeypatch.setattr(chosen_keys, name, lambda *a, n=name, w=way: (ways.append(n), w(*a))[1])
    network = (
        Sparsifiner(keep_rate=0.3, reduce_tokens=3, reconstruction_epochs=0).apply(BASES["vit"]()).eval()
    )
    with torch.no_grad():
        network(images())
    assert ways == ["only_chosen"] * 4
    ways.clear()
    network.train()(images())
    assert ways == ["all_masked"] * 4


def test_half_numbers_and_programs_that_are_exported():
    network = Sparsifiner(keep_rate=0.4, reduce_tokens=3).apply(filled(BASES["registers"]())).float()
    program = torch.export.export(network.eval(), (images(),))
    torch.testing.assert_close(program.module()(images()), network(images()))
    with torch.no_grad():
        for kind in (torch.bfloat16, torch.float16):
            assert network.to(kind)(images().to(kind)).isfinite().all()


def test_a_way_back_from_sparse_attention():
    network = Sparsifiner(keep_rate=0.4, reduce_tokens=3).apply(filled(BASES["vit"]())).double()
    attention = network.blocks[0].attn
    x = torch.randn(1, 17, 24, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(attention, (x,))
    attention(x).sum().backward()
    assert all(p.grad is None for p in attention.mask_predictor.parameters())
    assert attention.qkv.weight.grad.abs().sum() > 0


def test_multiply_adds_by_hand():
    network = Sparsifiner(keep_rate=0.3, reduce_tokens=4).apply(BASES["distilled"]())
    n, c, heads, d, rank, image = 18, 24, 3, 8, 4, 16
    kept = math.ceil(0.3 * n)
    attention = n * c * 4 * c + 2 * heads * d * (2 * n + image * kept)
    # q and k reduced, keys brought to the rank, coefficients, and the four of them that make an estimate
    predictor = image * d * 4 + n * d * 4 + n * 4 * rank + image * 4 * rank + image * n * rank
    assert network.blocks[0].attn.macs((2, n, c)) == 2 * (attention + heads * predictor)
    whole = total_macs(network, (1, 3, 32, 32))
    bare = total_macs(BASES["distilled"](), (1, 3, 32, 32))
    # of timm's attention the maps alone are counted
    assert whole - bare == 4 * (attention - n * c * 4 * c + heads * predictor)


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("base", ["vit", "distilled"])
def test_tokens_go_and_those_before_the_image_s_stay(base, drop):
    chosen = Sparsifiner(
        keep_rate=0.5, reduce_tokens=3, token_keep_rate=0.5, token_layers=(1, 2), drop_tokens=drop
    )
    network = chosen.apply(filled(BASES[base]())).double().eval()
    prefix, outputs = network.num_prefix_tokens, []
    for block in network.blocks:
        block.mlp.register_forward_hook(lambda m, x, y: outputs.append(y.shape[1]))
    network.norm.register_forward_hook(lambda m, x, y: outputs.append(x[0]))
    network(images().double())
    *lengths, last = outputs
    if drop:
        assert lengths == [prefix + n for n in (16, 8, 4, 4)]
        assert last.shape[1] == prefix + 4
        assert network.blocks.places.shape == (2, 4)
        assert (network.blocks.places.diff(dim=1) > 0).all()
    else:
        assert lengths == [prefix + 16] * 4
        assert ((last != 0).any(-1).sum(1) == prefix + 4).all()
        assert (last[:, :prefix] != 0).any(-1).all()


def test_tokens_that_stay_keep_their_order():
    chosen = Sparsifiner(reduce_tokens=3, token_keep_rate=0.5, token_layers=(1,), drop_tokens=True)
    network = chosen.apply(filled(BASES["vit"]())).double().eval()
    network(images().double())
    assert (network.blocks.places.diff(dim=1) > 0).all()


def test_taken_out_is_made_zero_but_for_what_tokens_before_the_image_s_pay_to_zeros(monkeypatch):
    """If these do not see zeros, both ways of losing tokens are one."""
    arguments = {"keep_rate": 0.5, "reduce_tokens": 3, "token_keep_rate": 0.5, "token_layers": (0, 1)}
    bare, x = filled(BASES["distilled"]()), images().double()
    torch.manual_seed(0)
    zeroed = Sparsifiner(**arguments).apply(copy.deepcopy(bare)).double().eval()
    torch.manual_seed(0)
    out = Sparsifiner(**arguments, drop_tokens=True).apply(copy.deepcopy(bare)).double().eval()
    assert not torch.allclose(zeroed(x), out(x), rtol=1e-6)

    kept = SparseAttention._kept

    def unseen(self, q, k, v, chosen):
        y = kept(self, q, k, v, chosen)
        # what went has keys of zero
        mask = (k != 0).any(-1)[:, :, None]
        y[:, :, :2] = F.scaled_dot_product_attention(q[:, :, :2], k, v, attn_mask=mask)
        return y

    monkeypatch.setattr(SparseAttention, "_kept", unseen)
    monkeypatch.setattr(
        SparseAttention, "_paid", lambda self, q, k: (q[:, :, :1] @ k.mT).sigmoid()[:, :, 0].mean(1)
    )
    torch.testing.assert_close(zeroed(x), out(x), rtol=1e-9, atol=1e-9)


def test_what_calls_blocks_one_by_one_is_told_that_tokens_are_taken_out():
    arguments = {"reduce_tokens": 3, "token_keep_rate": 0.5, "token_layers": (1,), "reconstruction_epochs": 0}
    network = Sparsifiner(**arguments, drop_tokens=True).apply(BASES["vit"]())
    with pytest.raises(InvalidInput, match="leave gradient checkpointing and maps of single blocks out"):
        network.forward_intermediates(images())
    network.set_grad_checkpointing(True)
    with pytest.raises(InvalidInput, match="leave gradient checkpointing and maps of single blocks out"):
        network.train()(images())
    zeroed = Sparsifiner(**arguments).apply(BASES["vit"]()).eval()
    assert torch.equal(zeroed.forward_intermediates(images())[0], zeroed.forward_features(images()))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"keep_rate": 0}, "keep_rate must be above 0 and at most 1, got 0"),
        ({"token_keep_rate": 1.5}, "token_keep_rate must be above 0 and at most 1, got 1.5"),
        ({"reduce_tokens": 0}, "reduce_tokens must be an integer of at least 1, got 0"),
        ({"reduce_tokens": 18}, "reduce_tokens 18 leaves no rank of 17 tokens"),
        ({"reduce_channels": 9}, "reduce_channels 9 leaves none of a head's 8 channels"),
        ({"logits": -1.0}, r"logits must be at least 0 and finite, got -1\.0"),
        ({"token_keep_rate": 0.5}, r"layers must be different block numbers from 0 to 3, got \(3, 6, 9\)"),
    ],
)
def test_what_cannot_be_is_said(arguments, says):
    with pytest.raises(InvalidInput, match=says):
        adapter("sparsifiner", **{"reduce_tokens": 3, **arguments}).apply(BASES["vit"]())


def test_networks_that_it_does_not_suit_are_refused():
    with pytest.raises(UnknownName, match="scale"):
        Sparsifiner(scale="head")
    for further, says in (
        ({"dynamic_img_size": True}, "make the network without dynamic_img_size"),
        ({"patch_drop_rate": 0.5}, "make the network without patch_drop_rate"),
    ):
        network = timm.create_model("vit_tiny_patch16_224", **SMALL, **further)
        with pytest.raises(InvalidInput, match=says):
            Sparsifiner(reduce_tokens=3).apply(network)
    none = timm.create_model("vit_tiny_patch16_224", **SMALL, class_token=False, global_pool="avg")
    with pytest.raises(InvalidInput, match="asks a class token which tokens are to go"):
        Sparsifiner(reduce_tokens=3, token_keep_rate=0.5, token_layers=(1,)).apply(none)
    # all else it needs none for
    few = Sparsifiner(keep_rate=0.3, reduce_tokens=3, reconstruction_epochs=0).apply(none)
    assert isinstance(few.train()(images()), WithLosses)
    with pytest.raises(InvalidInput, match="was put around 16 tokens, got 15; apply it to a network of"):
        few.blocks[0](torch.randn(1, 15, 24))
    with pytest.raises(InvalidInput, match="takes no mask of tokens"):
        few.blocks[0].attn(torch.randn(1, 16, 24), is_causal=True)
