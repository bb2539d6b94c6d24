"""The laboratory of damaged images: what it measures, that networks begin alike, and its rule."""

import torch

from qna.data.images.labelled import TensorImages
from qna.labs.small_vit import adapted_vit
from qna.labs.tap_corruption.config import TAPCorruptionConfig
from qna.labs.tap_corruption.training import NETWORKS, damage, pairwise_cosine
from qna.labs.tap_corruption.verdict import made_up, verdict

CONFIG = TAPCorruptionConfig(dim=32, depth=2)
IMAGE = torch.Size((1, 28, 28))


def test_networks_begin_alike():
    states = [adapted_vit(CONFIG, IMAGE, 10, adapter, 3).state_dict() for adapter in NETWORKS.values()]
    assert all(torch.equal(state[name], t) for state in states for name, t in states[-1].items())
    both, pooled, judged, plain = (set(state) for state in states)
    assert both == pooled > judged == plain


def test_cosines_of_even_and_of_own_attention():
    network = adapted_vit(CONFIG, IMAGE, 10, None, 0)
    images = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        for block in network.blocks:
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()
    assert abs(pairwise_cosine(network, images) - 1) < 1e-5
    with torch.no_grad():
        for block in network.blocks:
            # each token attends itself: queries and keys are the normed token, many times as long
            block.attn.qkv.weight[:64] = 40 * torch.eye(32).repeat(2, 1)
    assert pairwise_cosine(network, images) < 0.2


def test_damage_keeps_labels_and_is_the_same_every_time():
    images = TensorImages(torch.full((4, 1, 28, 28), 100, dtype=torch.uint8), torch.arange(4))
    first, again = damage(images, "noise", 3), damage(images, "noise", 3)
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.labels, images.labels)
    assert 25 < first.pixels.float().std() < 36
    assert torch.equal(
        damage(images, "brightness", 2).pixels, torch.full((4, 1, 28, 28), 151, dtype=torch.uint8)
    )


def test_the_rule():
    assert verdict(made_up(right=-0.05)).word == "held"
    assert verdict(made_up(damaged=0.1)).word == "direction only"
    assert verdict(made_up(cosine=0.1)).word == "not seen"
    assert "missing" in verdict({}).figures
