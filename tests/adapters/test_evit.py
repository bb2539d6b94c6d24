"""EViT: published counts, a loop over its definition, limits that change nothing, which tokens are kept."""

import copy
import math
import pickle

import pytest
import timm
import torch

from qna._core.errors import InvalidInput
from qna.adapters import EViT, adapter
from qna.adapters.evit import ReorganisingBlock, kept_tokens
from qna.export import TOLERANCE, export_onnx
from tests.adapters.bases import BASES, SMALL
from tests.adapters.contract import images

# the authors' README, DeiT-S at 224 pixels, fused: keep rate -> tokens after blocks 3, 6, 9, and GMAC
PUBLISHED = {
    0.9: ((179, 163, 148), 4.0),
    0.8: ((159, 129, 105), 3.5),
    0.7: ((140, 100, 72), 3.0),
    0.6: ((120, 74, 46), 2.6),
    0.5: ((100, 52, 28), 2.3),
}


@pytest.mark.parametrize("rate", PUBLISHED)
def test_tokens_and_multiply_adds_are_the_published_ones(rate):
    counts = [1 + n for n in EViT(rate).token_counts(196, 12)]
    tokens, gmac = PUBLISHED[rate]
    assert tuple(counts[i] for i in (3, 6, 9)) == tokens
    assert counts[:3] == [197] * 3
    dim, before = 384, [197, *counts[:-1]]
    macs = 196 * 3 * 256 * dim + dim * 1000
    macs += sum(
        4 * n * dim**2 + 2 * n**2 * dim + 8 * after * dim**2 for n, after in zip(before, counts, strict=True)
    )
    assert f"{macs / 1e9:.1f}" == f"{gmac:.1f}"


def filled(network):
    """No tensor at the value that it has by itself."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return network.double().eval()


def by_definition(block, x, *, prefix, keep, fuse):
    """Token by token, of timm's own block."""
    attention, probabilities = block.attn, []
    n = block.norm1(x)
    q, k, _ = attention.qkv(n).chunk(3, -1)
    for b in range(len(x)):
        heads = []
        for h in range(attention.num_heads):
            part = slice(h * attention.head_dim, (h + 1) * attention.head_dim)
            heads.append((q[b, 0, part] @ k[b, :, part].T / math.sqrt(attention.head_dim)).softmax(0))
        probabilities.append(torch.stack(heads).mean(0)[prefix:])
    x = x + block.ls1(attention(n))
    rows = []
    for image, paid in zip(x, probabilities, strict=True):
        order = sorted(range(len(paid)), key=lambda i: -paid[i])
        row = [*image[:prefix], *(image[prefix + i] for i in order[:keep])]
        if fuse:
            row.append(sum(paid[i] * image[prefix + i] for i in order[keep:]))
        rows.append(torch.stack(row))
    x = torch.stack(rows)
    return x + block.ls2(block.mlp(block.norm2(x)))


@pytest.mark.parametrize("base", ["vit", "distilled", "registers"])
@pytest.mark.parametrize("fuse", [True, False])
def test_a_block_is_its_definition(base, fuse):
    network = filled(BASES[base]())
    prefix = network.num_prefix_tokens
    plain = copy.deepcopy(network.blocks[2])
    EViT(0.35, layers=(2,), fuse=fuse).apply(network)
    x = torch.randn(2, prefix + 16, 24, dtype=torch.double, generator=torch.Generator().manual_seed(5))
    expected = by_definition(plain, x, prefix=prefix, keep=6, fuse=fuse)
    torch.testing.assert_close(network.blocks[2](x), expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(network.blocks[2], (x[:1, : prefix + 5].clone().requires_grad_(),))


@pytest.mark.parametrize("base", ["vit", "distilled", "registers"])
def test_limits_that_change_nothing(base):
    bare = BASES[base]().eval()
    same = EViT(1.0, layers=(0, 1, 2, 3)).apply(copy.deepcopy(bare))
    assert torch.equal(same(images()), bare(images()))
    many = EViT(0.5, layers=(1,), tokens=16).apply(copy.deepcopy(bare))
    assert torch.equal(many(images()), bare(images()))
    assert all(torch.equal(same.state_dict()[name], t) for name, t in bare.state_dict().items())
    if bare.global_pool == "token":
        # what the last block drops no longer reaches the class token
        last = EViT(0.3, layers=(3,)).apply(copy.deepcopy(bare).double())
        torch.testing.assert_close(
            last(images().double()), bare.double()(images().double()), rtol=1e-12, atol=1e-12
        )


def test_the_order_of_image_tokens_changes_indices_alone():
    """Without positions a permuted image gives the same output, and the same tokens by their old places."""
    network = filled(BASES["vit"]())
    with torch.no_grad():
        network.pos_embed.zero_()
    EViT(0.6, layers=(1, 2)).apply(network)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    x = images(1).double()
    patches = x.unflatten(2, (4, 8)).unflatten(4, (4, 8)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    moved = patches[:, order].unflatten(1, (4, 4)).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
    torch.testing.assert_close(network(moved), network(x), rtol=1e-10, atol=1e-10)
    for here, there in zip(kept_tokens(network, x), kept_tokens(network, moved), strict=True):
        assert [int(i) if i < 0 else int(order[i]) for i in there[0]] == here[0].tolist()


def test_kept_tokens_are_places_of_the_image_through_all_layers():
    network = EViT(0.6, layers=(1, 2)).apply(filled(BASES["vit"]()))
    first, second = kept_tokens(network, images().double())
    assert (first.shape, second.shape) == ((2, 10), (2, 7))
    for before, after in zip(first.tolist(), second.tolist(), strict=True):
        assert len(set(before)) == 10
        assert set(before) <= set(range(16))
        # ten of the image and the fused one were there
        assert set(after) <= {*before, -1}
        assert len(set(after)) == 7
    assert all(m.noted is None for m in network.modules() if isinstance(m, ReorganisingBlock))
    with pytest.raises(InvalidInput, match="holds no evit; apply the adapter first"):
        kept_tokens(BASES["vit"](), images())


def test_the_rate_falls_along_a_cosine_in_training_alone():
    chosen = EViT(0.6, layers=(1,), start_epochs=2, shrink_epochs=4)
    assert [round(chosen.rate(epoch), 4) for epoch in range(8)] == [1, 1, 1, 0.9414, 0.8, 0.6586, 0.6, 0.6]
    network = chosen.apply(BASES["vit"]()).train()
    lengths = []
    network.blocks[1].mlp.register_forward_hook(lambda m, x, y: lengths.append(y.shape[1]))
    for epoch in (0, 4, 7):
        network.blocks[1].begin_epoch(epoch, 8)
        network.train()(images())
        network.eval()(images())
    assert lengths == [17, 12, 1 + 13 + 1, 12, 12, 12]


def test_attention_dropout_reaches_what_is_paid():
    network = timm.create_model("vit_tiny_patch16_224", **SMALL, attn_drop_rate=0.5)
    EViT(0.5, layers=(1,)).apply(network)
    block, x = network.blocks[1], torch.randn(2, 17, 24)
    torch.manual_seed(0)
    paid = block.train()._attend(x)[1]
    assert (paid == 0).any()
    assert (block.eval()._attend(x)[1] > 0).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"keep_rate": 0}, "keep_rate must be above 0 and at most 1, got 0"),
        ({"keep_rate": 1.5}, "keep_rate must be above 0 and at most 1, got 1.5"),
        ({"layers": (1, 12)}, r"layers must be different block numbers from 0 to 3, got \(1, 12\)"),
        ({"layers": (1, 1)}, "layers must be different block numbers from 0 to 3"),
        ({"tokens": 0}, "tokens must be an integer of at least 1, got 0"),
        ({"start_epochs": -1}, "start_epochs and shrink_epochs must be at least 0, got -1 and 0"),
    ],
)
def test_what_cannot_be_is_said(arguments, says):
    with pytest.raises(InvalidInput, match=says):
        adapter("evit", **arguments).apply(BASES["vit"]())


def test_a_network_without_a_class_token_is_refused():
    network = timm.create_model("vit_tiny_patch16_224", **SMALL, class_token=False, global_pool="avg")
    with pytest.raises(InvalidInput, match="asks a class token what matters, and this network has none"):
        EViT(layers=(1,)).apply(network)


def test_intermediate_tokens_have_no_grid():
    network = EViT(keep_rate=0.5, layers=(1,)).apply(BASES["vit"]()).eval()
    for each in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        for asked in ({}, {"output_fmt": "NCHW"}):
            with pytest.raises(
                InvalidInput, match="no grid: forward_intermediates gives them with output_fm"
            ):
                each.forward_intermediates(images(), **asked)
        last, tokens = each.forward_intermediates(images(), output_fmt="NLC")
        assert [t.shape[1] for t in tokens] == [16, 9, 9, 9]
        assert torch.equal(last, network.forward_features(images()))
    # a copy asks its own blocks
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.norm.weight.zero_()
    assert not torch.equal(twin.forward_intermediates(images(), output_fmt="NLC")[0], last)


@pytest.mark.long
def test_onnx_keeps_what_the_network_keeps(tmp_path):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="qna[export] brings it")
    network = EViT(keep_rate=0.5, layers=(1, 2)).apply(BASES["vit"]()).eval()
    with torch.no_grad():
        for block in network.blocks:
            block.attn.qkv.weight.mul_(20)
    shape = ("batch", 3, SMALL["img_size"], SMALL["img_size"])
    exported = export_onnx(network, tmp_path / "evit.onnx", shape, sizes=[{"batch": 1}, {"batch": 3}])
    assert exported.difference < TOLERANCE
