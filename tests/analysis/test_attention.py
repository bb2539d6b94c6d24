import torch
from torch import nn

from qna.analysis import attention_received
from qna.mixers import QnA2d


class TwoMaps(nn.Module):
    """Two layers on the full map, one on half of it."""

    def __init__(self):
        super().__init__()
        self.first = QnA2d(4, num_heads=2, kernel_size=3)
        self.second = QnA2d(4, num_heads=2, kernel_size=3)
        self.small = QnA2d(4, num_heads=2, kernel_size=3)

    def forward(self, images):
        x = self.second(self.first(images.movedim(1, -1)))
        return self.small(x[:, ::2, ::2]).mean((1, 2))


def test_layers_with_maps_of_one_size_are_averaged():
    network, images = TwoMaps(), torch.randn(2, 4, 6, 8)
    full, half = attention_received(network, images)
    x = images.movedim(1, -1)
    with torch.no_grad():
        first, second = (
            network.first.attention_received(x),
            network.second.attention_received(network.first(x)),
        )
    assert full.layers == ("first", "second")
    assert full.size == (6, 8)
    torch.testing.assert_close(full.received, (first + second) / 2)
    assert (half.layers, half.size) == (("small",), (3, 4))
    assert half.over_image((12, 16)).shape == (2, 12, 16)


def test_the_network_is_left_as_it_was():
    network, images = TwoMaps().train(), torch.randn(1, 4, 6, 8)
    before = network(images)
    attention_received(network, images)
    assert network.training
    assert not network.first._forward_pre_hooks
    assert torch.equal(network(images), before)


def test_a_network_without_attention_gives_none():
    assert attention_received(nn.Conv2d(4, 4, 3), torch.randn(1, 4, 6, 8)) == []
