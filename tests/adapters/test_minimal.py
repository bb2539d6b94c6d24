"""Reduced attention in vision transformers: what is folded computes the same, the rest is told."""

import copy
from itertools import product

import pytest
import timm
import torch
from torch import nn

from qna._core.errors import InvalidInput, UnknownName
from qna.adapters import MinimalForm, SwapMixer, adapter, applied
from qna.adapters.minimal import AttentionBlock
from qna.analysis import attention_rollout
from qna.parts.minimal_attention import QK, VALUES
from tests.adapters.bases import BASES, SMALL
from tests.adapters.contract import images

EXACT = [("collapsed", "full"), ("full", "collapsed"), ("collapsed", "collapsed")]
each_base = pytest.mark.parametrize("base", ["vit", "distilled", "registers"])


def filled(network):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return network.double().eval()


def tokens(count=7):
    return torch.randn(2, count, 24, dtype=torch.double, generator=torch.Generator().manual_seed(4))


@each_base
@pytest.mark.parametrize(("qk", "value"), EXACT)
@torch.no_grad()
def test_what_is_folded_computes_what_was_there(base, qk, value):
    bare = filled(BASES[base]())
    expected = bare(images().double())
    network = MinimalForm(qk, value).apply(copy.deepcopy(bare))
    torch.testing.assert_close(network(images().double()), expected, rtol=1e-8, atol=1e-8 * expected.std())
    words = {"full": "kept", "collapsed": "folded"}
    told = applied(network)[0].told
    assert len(told) == 4
    assert all(f"queries and keys {words[qk]}, values and output {words[value]};" in text for text in told)
    assert {m.qk_form for m in network.modules() if hasattr(m, "qk_form")} == {qk}


@torch.no_grad()
def test_logits_agree_where_there_are_no_biases():
    """Before the softmax, not after it alone: W = W_q W_k^T."""
    bare = filled(timm.create_model("vit_tiny_patch16_224", **SMALL, qkv_bias=False))
    old = bare.blocks[2].attn
    q, k, _ = old.qkv(tokens()).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
    new = MinimalForm().apply(bare).blocks[2].attn
    query, key, _ = new.projected(tokens())
    torch.testing.assert_close(query * new.scale @ key.mT, q * old.scale @ k.mT, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_float32_weights_are_folded_to_rounding():
    torch.manual_seed(0)
    bare = BASES["vit"]().eval()
    network = MinimalForm("collapsed", "collapsed").apply(copy.deepcopy(bare))
    # some hundred roundings
    torch.testing.assert_close(network(images()), bare(images()), rtol=1e-4, atol=1e-5)


@each_base
@torch.no_grad()
def test_without_values_tokens_are_averaged_head_by_head(base):
    bare = filled(BASES[base]())
    old, x = bare.blocks[1].attn, tokens()
    q, k, _ = old.qkv(x).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT * 8**-0.5).softmax(-1)
    network = MinimalForm(layers=(1,)).apply(bare)
    expected = torch.cat([weights[:, h] @ x[..., 8 * h : 8 * h + 8] for h in range(3)], -1)
    torch.testing.assert_close(network.blocks[1].attn(x), expected, rtol=1e-10, atol=1e-11)
    # layer scale of two branches in one of them
    before = 7_224 + 48 * (base == "registers")
    assert applied(network)[0].told == (
        "blocks.1: queries and keys folded, values and output dropped; "
        f"{before - 600:,} parameters, where it had {before:,}",
    )
    assert type(network.blocks[0].attn).__name__ == "Attention"


@pytest.mark.parametrize("heads", [1, 2])
@torch.no_grad()
def test_another_number_of_heads_keeps_the_projections(heads):
    """One softmax where there were three: of sums of all products, scaled for all channels."""
    bare = filled(BASES["vit"]())
    old, x = bare.blocks[0].attn, tokens()
    q, k, v = old.qkv(x).chunk(3, -1)
    network = MinimalForm("collapsed", "collapsed", heads=heads).apply(bare)
    d, parts = 24 // heads, []
    for h in range(heads):
        part = slice(h * d, h * d + d)
        parts.append((q[..., part] @ k[..., part].mT * d**-0.5).softmax(-1) @ v[..., part])
    expected = old.proj(torch.cat(parts, -1))
    torch.testing.assert_close(network.blocks[0].attn(x), expected, rtol=1e-10, atol=1e-10)
    told = f"values and output folded, {heads} softmax{'es' * (heads > 1)} for 3;"
    assert told in applied(network)[0].told[0]


@torch.no_grad()
def test_symmetric_queries_and_keys_begin_anew_unless_they_are():
    bare = filled(BASES["vit"]())
    network = MinimalForm("symmetric", "full").apply(copy.deepcopy(bare))
    for text in applied(network)[0].told:
        assert "queries and keys new, as their products are not symmetric, values and output kept;" in text
    # tied, without biases, one head: a triangle does what two matrices did
    single = filled(timm.create_model("vit_tiny_patch16_224", **{**SMALL, "num_heads": 1}))
    for block in single.blocks:
        block.attn.qkv.weight[24:48] = block.attn.qkv.weight[:24]
        block.attn.qkv.bias[:24] = 0
    expected = single(images().double())
    network = MinimalForm("symmetric", "collapsed").apply(single)
    assert all("queries and keys folded" in text for text in applied(network)[0].told)
    torch.testing.assert_close(network(images().double()), expected, rtol=1e-6, atol=1e-6 * expected.std())


@torch.no_grad()
def test_blocks_without_mlp():
    bare = filled(BASES["registers"]())
    x = tokens()
    network = MinimalForm("collapsed", "full", mlp=False, layers=(0, 3)).apply(copy.deepcopy(bare))
    for i in (0, 3):
        old = bare.blocks[i]
        assert type(network.blocks[i]) is AttentionBlock
        torch.testing.assert_close(
            network.blocks[i](x), x + old.ls1(old.attn(old.norm1(x))), rtol=1e-10, atol=1e-11
        )
        assert not [n for n, _ in network.blocks[i].named_parameters() if "mlp" in n or "2" in n]
    assert type(network.blocks[1]) is type(bare.blocks[1])
    assert (
        applied(network)[0].told[1].startswith("blocks.3: queries and keys folded, values and output kept,")
    )
    assert "MLP dropped" in applied(network)[0].told[1]
    # full attention may lose its MLP alone
    only = MinimalForm("full", "full", mlp=False).apply(copy.deepcopy(bare))
    block = bare.blocks[2]
    torch.testing.assert_close(only.blocks[2](x), x + block.ls1(block.attn(block.norm1(x))))


# masks


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("qk", "value"), EXACT)
@torch.no_grad()
def test_masks_pass_as_they_did(qk, value, fused):
    network = filled(BASES["vit"]())
    old = copy.deepcopy(network).blocks[0].attn
    network.blocks[0].attn.fused_attn = fused
    new, x = MinimalForm(qk, value).apply(network).blocks[0].attn, tokens()
    generator = torch.Generator().manual_seed(3)
    seen = torch.rand(7, 7, generator=generator) > 0.4
    seen.fill_diagonal_(True)
    added = torch.randn(2, 1, 7, 7, generator=generator).double()
    for given in ({"is_causal": True}, {"attn_mask": seen}, {"attn_mask": added}, {}):
        torch.testing.assert_close(new(x, **given), old(x, **given), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("qk", "value"), [*product(QK, VALUES)][1:])
@torch.no_grad()
def test_no_form_looks_behind_where_it_is_told_not_to(qk, value):
    attention = MinimalForm(qk, value).apply(filled(BASES["vit"]())).blocks[0].attn
    x = tokens()
    changed = x.clone()
    changed[:, 4:] += 1
    before, after = attention(x, is_causal=True), attention(changed, is_causal=True)
    torch.testing.assert_close(before[:, :4], after[:, :4], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(before[:, 4:], after[:, 4:])
    # nor does any keep to it by itself
    assert not torch.allclose(attention(x)[:, :4], attention(changed)[:, :4])


# what else is told and asked


@torch.no_grad()
def test_its_attention_is_read_by_rollout():
    torch.manual_seed(0)
    bare = filled(BASES["vit"]()).float()
    expected = attention_rollout(bare, images()).relevance
    network = MinimalForm("collapsed", "collapsed").apply(bare)
    torch.testing.assert_close(attention_rollout(network, images()).relevance, expected, rtol=1e-3, atol=1e-4)


def test_dropouts_stay():
    bare = timm.create_model("vit_tiny_patch16_224", **SMALL, attn_drop_rate=0.5, proj_drop_rate=0.25)
    attention = MinimalForm().apply(bare).blocks[0].attn
    assert (attention.attn_drop.p, attention.proj_drop.p) == (0.5, 0.25)
    x = tokens().float()
    for fused in (True, False):
        attention.fused_attn = fused
        assert not torch.equal(attention.train()(x), attention(x))
        assert torch.equal(attention.eval()(x), attention(x))


@pytest.mark.parametrize("fused", [True, False])
def test_weights_are_dropped_in_training_alone(fused):
    network = timm.create_model("vit_tiny_patch16_224", **SMALL, attn_drop_rate=0.5)
    attention, x = MinimalForm().apply(network).blocks[0].attn, tokens()
    attention.fused_attn = fused
    attention = attention.to(x.dtype).eval()
    assert torch.equal(attention(x), attention(x))
    attention.train()
    assert not torch.equal(attention(x), attention(x))


def test_what_is_saved():
    """Of a vision transformer's usual sizes, blocks only."""

    def blocks(**arguments):
        with torch.device("meta"):
            network = timm.create_model("deit_tiny_patch16_224")
            if arguments:
                MinimalForm(**arguments).apply(network)
        return sum(p.numel() for p in network.blocks.parameters())

    c = 192
    whole = blocks()
    assert whole == 12 * (12 * c**2 + 13 * c)
    assert blocks(heads=1, mlp=False) == 12 * (c**2 + 3 * c)
    assert blocks(heads=1) == 12 * (9 * c**2 + 10 * c)
    # of three heads a collapsed matrix each
    assert blocks(value="full") == whole + 12 * (c**2 + c)
    assert blocks(qk="symmetric", value="full") == whole - 12 * (2 * c**2 + 2 * c - 3 * 64 * 65 // 2)


def test_what_cannot_be_is_said():
    with pytest.raises(UnknownName, match="unknown qk 'Wqk'"):
        MinimalForm("Wqk")
    with pytest.raises(UnknownName, match="value"):
        adapter("minimal", value="symmetric")
    with pytest.raises(InvalidInput, match="heads must be an integer of at least 1, got 0"):
        MinimalForm(heads=0)
    with pytest.raises(InvalidInput, match="a block stays as it is"):
        MinimalForm("full", "full")
    with pytest.raises(InvalidInput, match="num_heads must divide dim, got num_heads=5 and dim=24"):
        MinimalForm(heads=5).apply(BASES["vit"]())
    with pytest.raises(InvalidInput, match="minimal has no meaning in a network that holds minimal"):
        MinimalForm(layers=(0,)).apply(MinimalForm(layers=(1,)).apply(BASES["vit"]()))
    normed = timm.create_model("vit_tiny_patch16_224", **SMALL, qk_norm=True)
    before = {n: t.clone() for n, t in normed.state_dict().items()}
    with pytest.raises(InvalidInput, match="attention of block 0 has norms or gates of its own"):
        MinimalForm().apply(normed)
    assert before.keys() == normed.state_dict().keys()
    gated = BASES["vit"]()
    gated.blocks[2].attn.gate = nn.Linear(24, 24)
    with pytest.raises(InvalidInput, match="attention of block 2 has norms or gates"):
        MinimalForm().apply(gated)
    assert type(gated.blocks[0].attn).__name__ == "Attention"


@torch.no_grad()
def test_the_mixer_takes_projections_of_its_full_form():
    """`swap_mixer` puts the mixer in the place of attention of image tokens, and keeps what has a role."""
    arguments = {"qk": "full", "value": "full", "num_heads": 3}
    network = SwapMixer("MinimalAttention2d", of="attention", arguments=arguments).apply(BASES["vit"]())
    assert "new nothing" in applied(network)[0].told[0]
