"""Mixers in the place of others: limits that change nothing, what is kept, what is refused."""

import pytest
import timm
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.adapters import SwapMixer, adapter, applied
from qna.mixers import MIXERS
from tests.adapters.bases import BASES, SMALL
from tests.adapters.contract import images


def told(network):
    return applied(network)[-1].told


def test_a_convolution_swapped_for_itself_changes_nothing():
    network = BASES["convnext"]().double().eval()
    x = images().double()
    expected = network(x)
    SwapMixer("DepthwiseConvolution2d", "depthwise", arguments={"bias": True}).apply(network)
    torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)
    assert told(network)[0] == (
        "stages.0.blocks.0.conv_dw: DepthwiseConvolution2d, kept filter.weight, filter.bias, new nothing"
    )


@pytest.mark.parametrize("base", ["vit", "distilled", "registers"])
def test_attention_that_the_mixer_repeats_changes_nothing(base):
    """Full attention of the map is the network's own, but for prefix tokens, which keep theirs anyway."""
    network = timm.create_model("vit_tiny_patch16_224", **SMALL, class_token=False, global_pool="avg")
    network = network.double().eval()
    expected = network(images().double())
    SwapMixer("FullAttention2d", "attention", arguments={"bias": True}).apply(network)
    torch.testing.assert_close(network(images().double()), expected, rtol=1e-10, atol=1e-10)
    assert "new nothing" in told(network)[0]

    network = BASES[base]().double().eval()
    attention, p = network.blocks[0].attn, network.num_prefix_tokens
    x = torch.randn(2, p + 16, 24, dtype=torch.double)
    expected = attention(x)
    SwapMixer("Identity2d", "attention", stages=(0,)).apply(network)
    found = network.blocks[0].attn(x)
    torch.testing.assert_close(found[:, :p], expected[:, :p], rtol=1e-12, atol=1e-12)
    assert torch.equal(found[:, p:], x[:, p:])
    assert type(network.blocks[1].attn) is type(attention)


def swin():
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=24, depths=(2, 2),
        num_heads=(2, 4), num_classes=5,
    )  # fmt: skip


def test_windows_make_room_for_what_the_map_is_mixed_by():
    network = swin()
    weights = network.layers[0].blocks[0].attn.qkv.weight.clone(), network.layers[1].blocks[1].attn
    SwapMixer("WindowAttention2d", "window_attention", stages=(0,), arguments={"bias": True}).apply(network)
    block = network.layers[0].blocks[0]
    assert (block.attn.window_size, block.attn.num_heads) == ((4, 4), 2)
    assert torch.equal(block.attn.qkv.weight, weights[0])
    assert network.layers[1].blocks[1].attn is weights[1]
    assert network(images()).shape == (2, 5)
    network.set_input_size((64, 48), window_size=(4, 4))
    assert network(torch.randn(1, 3, 64, 48)).shape == (1, 5)
    SwapMixer("QnA2d", "window_attention", stages=(1,), arguments={"kernel_size": 3}).apply(network)
    assert [each.adapter.mixer for each in applied(network)] == ["WindowAttention2d", "QnA2d"]


@pytest.mark.parametrize(
    "name", sorted(n for n, row in MIXERS.items() if row.traits.axes == 2 and not row.traits.pools)
)
def test_any_mixer_in_a_convolution_s_place(name):
    row, network = MIXERS[name], BASES["convnext"]()
    swap = SwapMixer(name, "depthwise", arguments={})
    if row.traits.upsamples or not row.traits.any_size:
        with pytest.raises(InvalidInput, match=r"does not keep the size|give map_size among its arguments"):
            swap.apply(network)
        return
    swap.apply(network)
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None]


@pytest.mark.parametrize("name", ["MixerGating2d", "HyperZZWGlobal2d"])
def test_a_mixer_of_one_map_takes_the_grid_of_tokens(name):
    network = SwapMixer(name, "attention").apply(BASES["vit"]())
    assert {block.attn.mixer.map_size for block in network.blocks} == {(4, 4)}
    assert network(images()).shape == (2, 5)


def test_dtype_device_and_mode_are_those_of_the_place():
    network = BASES["vit"]().bfloat16().eval()
    SwapMixer("QnA2d", "attention", arguments={"kernel_size": 3}).apply(network)
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    assert not any(m.training for m in network.modules())


@pytest.mark.parametrize(
    ("base", "arguments", "says"),
    [
        ("vit", {"mixer": "QnA1d", "of": "attention"}, "QnA1d does not keep the size of an image's map"),
        ("vit", {"mixer": "QnA2d", "of": "attention"}, "QnA2d needs kernel_size, which has no default"),
        (
            "vit",
            {"mixer": "QnA2d", "of": "depthwise"},
            "VisionTransformer has no depthwise that could be swapped",
        ),
        (
            "vit",
            {"mixer": "Identity2d", "of": "attention", "stages": (9,)},
            "no attention in stages 9 that could be swapped",
        ),
        (
            "convnext",
            {"mixer": "Identity2d", "of": "attention"},
            r"works on timm's plain vision transformers \(vit_\*, deit_\*\), not on ConvNeXt",
        ),
        (
            "vit",
            {"mixer": "Identity2d", "of": "attention", "arguments": {"a": 1}},
            "Identity2d does not take a",
        ),
    ],
)
def test_what_cannot_be_is_said(base, arguments, says):
    network = BASES[base]()
    with pytest.raises(InvalidInput, match=says):
        adapter("swap_mixer", **arguments).apply(network)
    assert not applied(network)


def test_names_are_looked_up():
    with pytest.raises(UnknownName, match="unknown mixer 'QnA'; did you mean 'QnA"):
        SwapMixer("QnA", "depthwise").apply(BASES["vit"]())
    with pytest.raises(UnknownName, match="unknown of 'windows'"):
        SwapMixer("QnA2d", "windows").apply(BASES["vit"]())
    network = SwapMixer("Identity2d", "attention").apply(BASES["vit"]())
    with pytest.raises(InvalidInput, match="swapped in for a grid of 4 x 4 tokens, got 25"):
        network.blocks[0].attn(torch.randn(1, 26, 24))
