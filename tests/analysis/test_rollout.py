import pytest
import timm
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.analysis import attention_rollout, token_attention
from qna.analysis.rollout import RolloutStep
from qna.mixers import WindowAttention2d
from qna.models._parts.block import MixerBlock
from qna.models._parts.shortcut import AveragePoolShortcut, StridedShortcut
from qna.parts.rows import PositionRows


def sharpened(network):
    """Attention far from even."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return network.eval()


class OneGlobalBlock(nn.Module):
    """One block of self-attention over the whole map, then the mean."""

    def __init__(self):
        super().__init__()
        self.block = MixerBlock(8, WindowAttention2d(8, num_heads=2, window_size=9), out_dim=8)

    def forward(self, images):
        return self.block(images.movedim(1, -1)).mean((1, 2))


def test_of_one_global_block_it_is_its_attention_matrix():
    network, images = sharpened(OneGlobalBlock()).double(), torch.randn(2, 8, 4, 5, dtype=torch.float64)
    x = network.block.norm1(images.movedim(1, -1))
    matrix = network.block.mixer.attention_map(x).mean(3).reshape(2, 20, 20)
    followed = attention_rollout(network, images).relevance.flatten(1).double()
    # mean over the rows of (A + I) / 2, 1 where even; it is returned in single precision
    torch.testing.assert_close(2 * followed - 1, matrix.sum(1), rtol=1e-5, atol=1e-5)
    for row in range(20):
        one = torch.zeros(2, 20, dtype=torch.float64)
        one[:, row] = 1
        step = RolloutStep("block", (4, 5), network.block.mixer.attention_rows(x))
        torch.testing.assert_close(2 * step.pull(one) - one, matrix[:, row])


@pytest.mark.parametrize(
    "options", [{}, {"shortcut": "avgpool"}, {"global_pool": "qnav1"}, {"global_pool": "qnav2"}]
)
@pytest.mark.parametrize("size", [(16, 16), (21, 13)])
def test_row_by_row_is_the_product_of_all_matrices(options, size):
    network = sharpened(timm.create_model("qna_vit_nano_16", in_chans=1, **options))
    images = torch.randn(2, 1, *size)
    captured = []
    for block in network.modules():
        if isinstance(block, MixerBlock):
            block.register_forward_pre_hook(lambda m, inputs: captured.append((m, inputs[0])))
    rollout = attention_rollout(network, images)
    captured = captured[: len(rollout.layers)]
    product = None
    with torch.no_grad():
        for block, x in captured:
            n = x.shape[1] * x.shape[2]
            attention = block.mixer.attention_rows(block.norm1(x)).dense(n)
            skip = (
                torch.eye(n)
                if isinstance(block.shortcut, nn.Identity)
                else block.shortcut.position_rows(x).dense(n)
            )
            matrix = (attention + skip) / 2
            # each row of each factor is a distribution over positions: sums of some hundred fp32 terms
            torch.testing.assert_close(matrix.sum(-1), torch.ones(2, len(matrix[0])), rtol=0, atol=1e-5)
            product = matrix if product is None else matrix @ product
        last = network.norm(captured[-1][0](captured[-1][1]))
        pool = network.head.pool.attention_rows(last)
        expected = (pool.dense(product.shape[1]) @ product)[:, 0]
    torch.testing.assert_close(expected.sum(1), torch.ones(2), rtol=0, atol=1e-5)
    n = expected.shape[1]
    torch.testing.assert_close(rollout.relevance.flatten(1), expected * n, rtol=1e-4, atol=1e-4)
    assert (rollout.relevance - 1).abs().max() > 0.05
    assert rollout.over_image(size).shape == (2, *size)


@pytest.mark.parametrize("size", [(5, 8), (4, 4), (1, 7)])
def test_skip_paths_show_the_positions_that_they_are_made_of(size):
    """With weights that copy channels, the path's output is its rows times its input."""
    x = torch.randn(2, *size, 3)
    n = size[0] * size[1]
    strided = StridedShortcut(3, 3, stride=2)
    pooled = AveragePoolShortcut(3, 3, stride=2, window=3)
    with torch.no_grad():
        for path in (strided, pooled):
            path.proj.weight.copy_(torch.eye(3))
        torch.testing.assert_close(
            strided(x).flatten(1, 2), strided.position_rows(x).dense(n) @ x.flatten(1, 2)
        )
        # the pooling counts zeros outside the map, its rows do not
        counted = pooled(torch.ones(1, *size, 3))[..., :1]
        actual = (pooled(x) / counted).flatten(1, 2)
        torch.testing.assert_close(actual, pooled.position_rows(x).dense(n) @ x.flatten(1, 2))


def test_an_empty_window_leaves_all_to_the_skip_path():
    rows = PositionRows(torch.tensor([[[1.0], [0.0]]]), torch.tensor([[0], [0]]))
    step = RolloutStep("a", (1, 2), rows)
    assert step.pull(torch.tensor([[0.0, 1.0]])).tolist() == [[0.0, 1.0]]
    assert step.pull(torch.tensor([[1.0, 0.0]])).tolist() == [[1.0, 0.0]]


def test_timms_transformers_show_the_softmax_of_their_blocks():
    network, images = sharpened(timm.create_model("test_vit")), torch.randn(2, 3, 160, 160)
    fused = [block.attn.fused_attn for block in network.blocks]
    tokens = token_attention(network, images)
    assert [block.attn.fused_attn for block in network.blocks] == fused
    assert (tokens.prefix, tokens.size, tokens.by_class_token) == (1, (10, 10), True)
    # the first block, by hand
    with torch.no_grad():
        x = network.blocks[0].norm1(network.norm_pre(network._pos_embed(network.patch_embed(images))))
        attention = network.blocks[0].attn
        q, k, _ = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        expected = (q @ k.mT * attention.scale).softmax(-1).mean(1)
    torch.testing.assert_close(tokens.shares[0], expected)
    product = torch.eye(101)
    for shares in tokens.shares:
        product = (shares + torch.eye(101)) / 2 @ product
    torch.testing.assert_close(product.sum(-1), torch.ones(2, 101))
    patches = product[:, 0, 1:]
    rollout = attention_rollout(network, images)
    torch.testing.assert_close(
        rollout.relevance.flatten(1), patches / patches.mean(1, keepdim=True), rtol=1e-4, atol=1e-4
    )


def test_a_network_without_attention_is_refused_and_left_as_it_was():
    network = timm.create_model("test_convnext").train()
    with pytest.raises(
        InvalidInput, match=r"blocks of qna.models or of a plain vision transformer, which ConvNeXt does"
    ):
        attention_rollout(network, torch.randn(1, 3, 64, 64))
    assert network.training
