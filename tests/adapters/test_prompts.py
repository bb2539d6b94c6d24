"""TCPA, VPT and VFPT: what the authors' own code computes, limits, counts, what is trained, refusals."""

import copy
import json
from pathlib import Path

import pytest
import timm
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna._core.with_losses import WithLosses
from qna.adapters import (
    TCPA,
    VFPT,
    VPT,
    EViT,
    GatedAttention,
    adapter,
    added_names,
    applied,
    from_pretrained,
    save_pretrained,
)
from qna.adapters._parts.prompts import apart, fourier
from tests.adapters.bases import BASES, SMALL
from tests.adapters.contract import images, logits

GOLDEN = json.loads((Path(__file__).parent / "golden" / "prompts.json").read_text())
NAMES = ("tcpa", "vpt", "vfpt")


# limits
def filled(network, seed=2):
    """No tensor at the value that it has by itself."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return network.double().eval()


def share_prompts(of, to):
    """Give VPT's network `to` the prompts of TCPA's network `of`."""
    with torch.no_grad():
        for ours, theirs in zip(of.blocks, to.blocks, strict=True):
            pools = ours.prompts
            theirs.prompts.tokens.copy_(torch.cat([pools.class_pool.tokens, pools.image_pool.tokens]))


@pytest.mark.parametrize("base", ["vit", "distilled", "registers"])
def test_open_pools_are_deep_prompts(base):
    bare = BASES[base]()
    opened = filled(TCPA(form="open", pool=(3, 2), length=(1, 2)).apply(copy.deepcopy(bare)))
    deep = filled(VPT(7).apply(copy.deepcopy(bare)))
    share_prompts(opened, deep)
    x = images().double()
    assert torch.equal(opened(x), deep(x))
    waves = filled(TCPA(form="open", pool=(3, 2), length=(1, 2), fourier=True).apply(copy.deepcopy(bare)))
    whole = filled(VFPT(7, part=1.0).apply(copy.deepcopy(bare)))
    share_prompts(waves, whole)
    assert torch.equal(waves(x), whole(x))
    plain = filled(VFPT(7, part=0.0).apply(copy.deepcopy(bare)))
    share_prompts(opened, plain)
    assert torch.equal(plain(x), deep(x))


def test_choosing_all_of_a_pool_leaves_the_roles():
    bare = BASES["registers"]()
    every = filled(TCPA(pool=(3, 4), top=(3, 4)).apply(copy.deepcopy(bare)))
    roles = filled(TCPA(form="role", pool=(3, 4)).apply(copy.deepcopy(bare)))
    state = every.state_dict()
    assert {name for name in state if name.endswith("keys")} == state.keys() - roles.state_dict().keys()
    roles.load_state_dict({name: state[name] for name in roles.state_dict()})
    assert torch.equal(every(images().double()), roles(images().double()))
    # the same weights seen by all are another network
    opened = TCPA(form="open", pool=(3, 4)).apply(copy.deepcopy(bare)).double().eval()
    opened.load_state_dict(roles.state_dict())
    assert (opened(images().double()) - roles(images().double())).abs().max() > 1e-3


@pytest.mark.parametrize("prefix", [1, 5])
def test_each_token_sees_so_many_prompts_of_its_pool(prefix):
    network = TCPA(pool=(6, 7), top=(2, 4), length=(3, 2)).apply(
        BASES["vit" if prefix == 1 else "registers"]()
    )
    pools = network.blocks[0].prompts
    x = torch.randn(2, prefix + 16, 24)
    opened = pools.eval().opened(x)
    assert opened.unique().tolist() == [0, 1]
    by_class, by_image = opened.split([18, 14], -1)
    assert (by_class.sum(-1) == torch.tensor([6] * prefix + [0] * 16)).all()
    assert (by_image.sum(-1) == torch.tensor([0] * prefix + [8] * 16)).all()
    # prompt by prompt, and token by token, from the definition
    for image, row in zip(x, opened, strict=True):
        for i, token in enumerate(image):
            pool, top, start = (pools.class_pool, 2, 0) if i < prefix else (pools.image_pool, 4, 18)
            near = [torch.cosine_similarity(token, key, 0).item() for key in pool.keys]
            chosen = sorted(range(len(near)), key=lambda j: -near[j])[:top]
            length = pool.prompts.shape[1]
            expected = {start + length * j + part for j in chosen for part in range(length)}
            assert set(row[i].nonzero().flatten().tolist()) == expected


def by_definition(block, x, prompts, opened):
    """Query by query and head by head, of timm's own parts."""
    attention, n = block.attn, block.norm1(x)
    both = torch.cat([n, block.norm1(prompts).expand(len(x), -1, -1)], 1)
    q, k, v = attention.qkv(both).chunk(3, -1)
    rows, sums = torch.zeros_like(x), []
    for b in range(len(x)):
        for h in range(attention.num_heads):
            part = slice(h * attention.head_dim, (h + 1) * attention.head_dim)
            for i in range(x.shape[1]):
                weights = (k[b, :, part] @ q[b, i, part] / attention.head_dim**0.5).softmax(0)
                weights = weights * torch.cat([torch.ones(x.shape[1]), opened[b, i]])
                sums.append(weights.sum().item())
                rows[b, i, part] = weights @ v[b, :, part]
    x = x + block.ls1(attention.proj(rows))
    return x + block.ls2(block.mlp(block.norm2(x))), sums


@pytest.mark.parametrize("form", ["token", "role", "open"])
def test_a_block_is_its_definition(form):
    network = filled(TCPA(form=form, pool=(3, 4), top=(1, 2), length=(1, 2)).apply(BASES["registers"]()))
    block, x = network.blocks[1], torch.randn(2, 5 + 16, 24, dtype=torch.double)
    opened = block.prompts.opened(x)
    opened = torch.ones(2, 21, 11) if opened is None else opened.expand(2, -1, -1)
    expected, sums = by_definition(block, x, block.prompts.for_images(2), opened)
    torch.testing.assert_close(block(x), expected, rtol=1e-11, atol=1e-11)
    # what is closed is not given to the others
    if form == "open":
        assert min(sums) == pytest.approx(1, abs=1e-12)
    assert max(sums) <= 1 + 1e-12
    assert (min(sums) < 0.99) == (form != "open")


def test_closed_prompts_leave_attention_scaled_by_what_is_left():
    network = filled(VPT(3).apply(BASES["vit"]()))
    block, x = network.blocks[0], torch.randn(2, 17, 24, dtype=torch.double)
    block.attn.proj = torch.nn.Identity()
    normed, prompts = block.norm1(x), block.norm1(block.prompts.for_images(2))
    closed = block._attend(normed, prompts, torch.zeros(1, 17, 3, dtype=torch.double))
    q, k, _ = block.attn.qkv(torch.cat([normed, prompts.expand(2, -1, -1)], 1)).chunk(3, -1)
    q, k = (part.unflatten(-1, (3, 8)).transpose(1, 2) for part in (q, k))
    left = (q[:, :, :17] @ k.transpose(-2, -1) / 8**0.5).softmax(-1)[..., :17].sum(-1)
    plain = block.attn(normed).unflatten(-1, (3, 8))
    torch.testing.assert_close(
        closed, (plain * left.transpose(1, 2)[..., None]).flatten(2), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("large", [1, 40])
def test_weights_of_prompts_come_out_of_fused_attention(large):
    """As those that are formed, also where nearly all or nothing is on the prompts."""
    torch.manual_seed(0)
    attention = BASES["vit"]().blocks[0].attn.double()
    q, k = large * torch.randn(2, 3, 6, 8).double(), torch.randn(2, 3, 11, 8).double()
    k[0, :, 6:] += 2 * q[0].mean(1, keepdim=True)
    v = torch.randn(2, 3, 6, 8).double()
    y, weights = apart(attention.eval(), q, k, v)
    attention.attn_drop.p = 1e-300
    expected_y, expected = apart(attention.train(), q, k, v)
    # a weight is as wrong, relatively, as its score is absolutely
    scores = (q @ k.transpose(-2, -1)).abs().max().item() * attention.scale
    tolerance = 16 * torch.finfo(torch.double).eps * max(1.0, scores)
    torch.testing.assert_close(weights, expected, rtol=tolerance, atol=tolerance * expected.min().item())
    torch.testing.assert_close(y, expected_y, rtol=tolerance, atol=tolerance)


def test_fourier_is_its_definition():
    x, count, dim = torch.randn(2, 5, 6, dtype=torch.double), 5, 6
    at = [
        torch.arange(n, dtype=torch.double)[:, None] * torch.arange(n) * 2 * torch.pi / n
        for n in (count, dim)
    ]
    by_tokens, by_channels = torch.cos(at[0]) @ x, x @ torch.cos(at[1])
    both = by_tokens @ torch.cos(at[1]) - torch.sin(at[0]) @ x @ torch.sin(at[1])
    for over, expected in {"tokens": by_tokens, "channels": by_channels, "both": both}.items():
        torch.testing.assert_close(fourier(x, over), expected, rtol=1e-12, atol=1e-12)
    assert fourier(x.bfloat16(), "both").dtype == torch.bfloat16


def test_order_of_prompts_says_nothing():
    for chosen in (VPT(4), VPT(4, deep=False)):
        network = filled(chosen.apply(BASES["registers"]()))
        expected = network(images().double())
        with torch.no_grad():
            for block in network.blocks:
                if getattr(block, "prompts", None) is not None:
                    block.prompts.tokens.copy_(block.prompts.tokens.flip(0))
        torch.testing.assert_close(network(images().double()), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_shallow_prompts_pass_as_tokens_and_are_pooled_by_none(pool):
    network = timm.create_model("vit_tiny_patch16_224", **SMALL, global_pool=pool)
    bare = filled(copy.deepcopy(network))
    shallow = filled(VPT(3, deep=False).apply(network))
    prompts = shallow.blocks[0].prompts.tokens
    bare.load_state_dict({n: t for n, t in shallow.state_dict().items() if ".prompts." not in n})
    x = bare._pos_embed(bare.patch_embed(images().double()))
    x = bare.blocks(torch.cat([x[:, :1], prompts.expand(2, -1, -1), x[:, 1:]], 1))
    expected = bare.forward_head(bare.norm(torch.cat([x[:, :1], x[:, 4:]], 1)))
    torch.testing.assert_close(shallow(images().double()), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("chosen", [VPT(3, deep=False), VFPT(4, deep=False)])
def test_maps_between_are_not_made_of_prompts(chosen):
    """Of 4 prompts and 16 patches maps of 30 channels would be made, in silence."""
    network = chosen.apply(BASES["vit"]()).eval()
    for asked in ({}, {"indices": [1]}, {"intermediates_only": True}):
        with pytest.raises(InvalidInput, match=r"with deep=False are among the tokens of blocks: .*'NLC'"):
            network.forward_intermediates(images(), **asked)
    twin = copy.deepcopy(network)
    last, tokens = twin.forward_intermediates(images(), output_fmt="NLC")
    assert [t.shape[1] for t in tokens] == [16 + chosen.tokens] * 3 + [16]
    assert torch.equal(last, network.forward_features(images()))
    assert adapter(chosen.name).apply(BASES["vit"]()).forward_intermediates(images())[1][0].shape[1:] == (
        24,
        4,
        4,
    )


# what is added, and what is trained


@pytest.mark.parametrize(
    ("chosen", "added"),
    [
        # pools of 18 of one token, class and image, keys and prompts, in 12 blocks of 768
        (TCPA(), 663_552),
        (TCPA(form="role"), 331_776),
        (VPT(36), 12 * 36 * 768),
        (VPT(36, deep=False), 36 * 768),
        (VFPT(36), 12 * 36 * 768),
    ],
)
def test_numbers_that_prompts_add(chosen, added):
    with torch.device("meta"):
        network = timm.create_model("vit_base_patch16_224", num_classes=10)
        bare = sum(p.numel() for p in network.parameters())
        chosen.apply(network)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == added + 768 * 10 + 10
    assert sum(p.numel() for p in network.parameters()) == bare + added
    assert applied(network)[0].told == (
        f"{bare - 7690:,} numbers of the network keep their values; prompts and classifier are trained",
    )


def test_prompts_begin_where_the_authors_have_them():
    network = VPT(500).apply(BASES["vit"]())
    bound = (6 / (3 * 8 * 8 + 24)) ** 0.5
    tokens = network.blocks[2].prompts.tokens.detach()
    assert 0.98 * bound < tokens.abs().max() <= bound
    assert abs(tokens.mean()) < 0.01
    pools = TCPA(pool=(500, 500)).apply(BASES["vit"]()).blocks[1].prompts
    for part in (pools.class_pool, pools.image_pool):
        for tensor in (part.keys, part.prompts):
            assert 0.98 < tensor.abs().max() <= 1
            assert abs(tensor.mean()) < 0.02


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("base", ["vit", "distilled", "registers"])
def test_a_step_changes_prompts_and_classifier_alone(name, base):
    network = adapter(name).apply(BASES[base]()).train()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    output = network(images(4))
    own = output.losses.values() if isinstance(output, WithLosses) else ()
    (logits(output).square().sum() + sum(own)).backward()
    optimizer.step()
    changed = {n for n, t in network.state_dict().items() if not torch.equal(before[n], t)}
    heads = {n for n in before if n.startswith("head")}
    assert changed == added_names(network) | heads
    assert changed == {n for n, p in network.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("chosen", [VPT(3, dropout=0.5), VFPT(4, dropout=0.5), TCPA(dropout=0.5)])
def test_dropout_is_drawn_for_each_image(chosen):
    torch.manual_seed(0)
    prompts = chosen.apply(BASES["vit"]()).train().blocks[0].prompts
    one, other = prompts.for_images(2)
    assert not torch.equal(one, other)
    assert len(prompts.eval().for_images(2)) == 1


def test_keys_learn_from_the_match_and_prompts_from_the_rest():
    torch.manual_seed(0)
    network = TCPA(pool=(3, 4), top=(2, 2), dropout=0.0).apply(BASES["vit"]()).train()
    output = network(images())
    keys = {n: p for n, p in network.named_parameters() if n.endswith("keys")}
    prompts = {n: p for n, p in network.named_parameters() if n.endswith("prompts")}
    logits(output).square().sum().backward(retain_graph=True)
    assert all(p.grad is None for p in keys.values())
    assert all(p.grad.norm() > 0 for p in prompts.values())
    network.zero_grad()
    output.losses["prompt_match"].backward()
    assert all(p.grad.norm() > 0 for p in keys.values())
    # through what they make of later blocks' inputs alone
    last = {n for n, p in prompts.items() if p.grad is None}
    assert last == {n for n in prompts if n.startswith("blocks.3.")}
    before = output.losses["prompt_match"].item()
    with torch.no_grad():
        for p in keys.values():
            p.sub_(100 * p.grad)
    assert network(images()).losses["prompt_match"].item() < before


def test_the_match_loss_is_the_sum_over_blocks():
    network = filled(TCPA(pool=(3, 4), top=(1, 2), dropout=0.0, match_weight=0.5).apply(BASES["distilled"]()))
    inputs = []
    for block in network.blocks:
        block.register_forward_pre_hook(lambda m, given: inputs.append(given[0]))
    loss = network.train()(images().double()).losses["prompt_match"]
    expected = 0
    for block, x in zip(network.blocks, inputs, strict=True):
        for pool, tokens in ((block.prompts.class_pool, x[:, :2]), (block.prompts.image_pool, x[:, 2:])):
            near = torch.cosine_similarity(tokens[:, :, None], pool.keys, -1)
            expected = expected + (1 - near.sort(-1).values[..., -pool.top :]).mean()
    torch.testing.assert_close(loss, 0.5 * expected)
    none = TCPA(pool=(3, 4), top=(1, 2), match_weight=0.0).apply(BASES["vit"]()).train()
    assert not isinstance(none(images()), WithLosses)


def test_first_epochs_choose_at_random_and_evaluation_never_does():
    network = TCPA(pool=(6, 6), top=(2, 2), dropout=0.0, random_epochs=2).apply(BASES["vit"]())
    pools, x = network.blocks[0].prompts, torch.randn(64, 17, 24)
    matched = pools.eval().opened(x)
    pools.train()
    torch.manual_seed(0)
    drawn_once, drawn_again = pools.opened(x), pools.opened(x)
    assert not torch.equal(drawn_once, drawn_again)
    assert (drawn_once[:, 1:, 6:].sum(-1) == 2).all()
    # each key of six is one of two in a third of the draws
    assert (drawn_once[:, 1:, 6:].mean((0, 1)) - 1 / 3).abs().max() < 0.07
    pools.begin_epoch(1, 5)
    assert not torch.equal(pools.opened(x), matched)
    pools.begin_epoch(2, 5)
    assert torch.equal(pools.opened(x), matched)


def test_recomputed_blocks_leave_no_losses_for_the_next_call():
    network = TCPA(pool=(3, 4), top=(1, 2), dropout=0.0).apply(BASES["vit"]()).train()
    expected = network(images()).losses["prompt_match"].item()
    network.set_grad_checkpointing(True)
    for _ in range(2):
        output = network(images())
        assert output.losses["prompt_match"].item() == pytest.approx(expected, rel=1e-6)
        (logits(output).sum() + output.losses["prompt_match"]).backward()


# several in one network, and refusals


@pytest.mark.parametrize("other", [EViT(0.5, layers=(1,)), TCPA(pool=(3, 3), top=(1, 1)), VPT(2), VFPT(2)])
def test_gates_and_others_compose_in_either_order(other, tmp_path):
    gates, bare = GatedAttention(position="value", bias=1.0), BASES["registers"]()
    one = filled(gates.apply(other.apply(copy.deepcopy(bare))))
    two = filled(other.apply(gates.apply(copy.deepcopy(bare))))
    assert [each.adapter.name for each in applied(two)] == ["gated", other.name]
    assert one.state_dict().keys() == two.state_dict().keys()
    trained = [{n for n, p in network.named_parameters() if p.requires_grad} for network in (one, two)]
    assert trained[0] == trained[1] >= added_names(one)
    two.load_state_dict(one.state_dict())
    x = images().double()
    torch.testing.assert_close(two(x), one(x), rtol=1e-12, atol=1e-12)
    alone = other.apply(copy.deepcopy(bare)).double().eval()
    alone.load_state_dict({n: t for n, t in one.state_dict().items() if ".gates." not in n})
    assert (alone(x) - one(x)).abs().max() > 1e-3
    for network, names in ((one.float(), [other.name, "gated"]), (two.float(), ["gated", other.name])):
        save_pretrained(network, tmp_path / names[0])
        again = from_pretrained(tmp_path / names[0])
        assert [each.adapter.name for each in applied(again)] == names
        assert torch.equal(again(images()), network(images()))


@pytest.mark.parametrize("name", NAMES)
def test_prompts_beside_what_has_no_meaning_are_refused(name):
    for other in (EViT(layers=(1,)), VPT(3)):
        network = other.apply(BASES["vit"]())
        with pytest.raises(InvalidInput, match=f"{name} has no meaning in a network that holds {other.name}"):
            adapter(name).apply(network)
        assert [each.adapter for each in applied(network)] == [other]


def test_a_network_without_class_token():
    network = timm.create_model("vit_tiny_patch16_224", **SMALL, class_token=False, global_pool="avg")
    with pytest.raises(
        InvalidInput, match="tcpa gives the class token prompts of its own, and this network has"
    ):
        TCPA().apply(network)
    assert all(p.requires_grad for p in network.parameters())
    for chosen in (VPT(3), VPT(3, deep=False), VFPT(4, part=0.5)):
        assert chosen.apply(copy.deepcopy(network))(images()).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("tcpa", {"pool": (3, 0), "top": (1, 1)}, "pool must be an integer of at least 1, got 0"),
        ("tcpa", {"pool": (3, 3)}, r"top must be at most pool, got \(10, 10\) of \(3, 3\)"),
        ("tcpa", {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ("tcpa", {"match_weight": -1.0}, r"match_weight must be at least 0 and finite, got -1\.0"),
        ("tcpa", {"form": "role", "random_epochs": 1}, "nothing is chosen in the form 'role'"),
        ("vpt", {"tokens": 0}, "tokens must be an integer of at least 1, got 0"),
        ("vfpt", {"part": 0.1}, "a part of 0.1 of 5 prompts is none"),
        ("vfpt", {"part": 1.5}, "part must be 0 to 1, got 1.5"),
    ],
)
def test_what_cannot_be_is_said(name, arguments, says):
    with pytest.raises(InvalidInput, match=says):
        adapter(name, **arguments)


def test_words_and_masks_that_are_not_known():
    with pytest.raises(UnknownName, match="form 'tokens'"):
        TCPA(form="tokens")
    with pytest.raises(InvalidInput, match=r"top must be two integers, one a pool .*, got 3"):
        TCPA(top=3)
    with pytest.raises(UnknownName, match="over 'all'"):
        adapter("vfpt", over="all")
    network = VPT(2).apply(BASES["vit"]())
    with pytest.raises(InvalidInput, match="a network with prompts takes no mask of tokens"):
        network.forward_features(images(), attn_mask=torch.ones(17, 17))
