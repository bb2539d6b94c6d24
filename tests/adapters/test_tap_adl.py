"""TAP and ADL: loops over the definitions, closed forms, what is added, where the loss goes."""

import copy

import pytest
import torch
import torch.nn.functional as F

from qna._core.errors import InvalidInput
from qna._core.with_losses import WithLosses
from qna.adapters import TAPADL, adapter
from qna.parts.token_pool import TokenAwarePool2d, attention_diversification
from tests.adapters.bases import BASES
from tests.adapters.contract import images, logits


def filled(module):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for t in module.state_dict().values():
            if t.dtype.is_floating_point:
                t.add_(0.3 * torch.rand(t.shape, generator=generator))
    return module.double().eval()


def mean_of_nine(x, dilation):
    """Position by position, zeros outside."""
    batch, height, width, _ = x.shape
    y = torch.zeros_like(x)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                for di in (-dilation, 0, dilation):
                    for dj in (-dilation, 0, dilation):
                        if 0 <= i + di < height and 0 <= j + dj < width:
                            y[b, i, j] += x[b, i + di, j + dj] / 9
    return y


@pytest.mark.parametrize("size", [(5, 4), (1, 1), (2, 7)])
def test_the_pool_is_its_definition(size):
    pool = filled(TokenAwarePool2d(3, 4))
    x = torch.randn(2, *size, 3, dtype=torch.double)
    image = x.permute(0, 3, 1, 2)
    first, norm, second = pool.proj
    scores = F.conv2d(image, first.weight, padding=1)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    scores = (scores - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
    weights = F.conv2d(scores, second.weight, padding=1).softmax(1)
    branches = [x, *(mean_of_nine(x, i) for i in (1, 2, 3))]
    expected = sum(weights[:, i, :, :, None] * branch for i, branch in enumerate(branches))
    torch.testing.assert_close(pool(x), expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(pool, (x[:1].clone().requires_grad_(),))


def test_limits_of_the_pool():
    pool = filled(TokenAwarePool2d(3, 2))
    constant = torch.ones(1, 6, 7, 3, dtype=torch.double)
    with torch.no_grad():
        pool.proj[1].weight.zero_()
        pool.proj[1].bias.copy_(torch.tensor([-1.0, 1.0]))
        pool.proj[2].weight.zero_()
        # all weight on the mean of nine
        pool.proj[2].weight[1, 1, 1, 1] = 2000.0
    pooled = pool(constant)[0, :, :, 0]
    torch.testing.assert_close(pooled[1:-1, 1:-1], torch.ones(4, 5, dtype=torch.double))
    torch.testing.assert_close(pooled[0, 1:-1], torch.full((5,), 6 / 9, dtype=torch.double))
    torch.testing.assert_close(pooled[0, 0], torch.tensor(4 / 9, dtype=torch.double))
    with torch.no_grad():
        pool.proj[2].weight[1, 1, 1, 1] = -2000.0
    x = torch.randn(1, 6, 7, 3, dtype=torch.double)
    assert torch.equal(pool(x), x)
    one = TokenAwarePool2d(3, 1)
    assert torch.equal(one(x.float()), x.float())


@pytest.mark.parametrize(("dim", "added"), [(448, 16_280), (768, 27_800)])
def test_parameters_that_the_pool_adds(dim, added):
    assert sum(p.numel() for p in TokenAwarePool2d(dim, 4).parameters()) == added


def test_limits_of_the_loss():
    n = 8
    even, own = torch.full((1, 1, n, n), 1 / n), torch.eye(n)[None, None]
    assert attention_diversification(even) == 0
    assert attention_diversification(own) == 0
    column = torch.zeros(1, 2, n, n)
    column[..., 3] = 1
    assert attention_diversification(column) == 1
    halves = torch.zeros(1, 1, n, n)
    halves[..., : n // 2, 0] = halves[..., n // 2 :, 1] = 1
    torch.testing.assert_close(attention_diversification(halves), torch.tensor(0.5**0.5))


def test_the_loss_is_its_definition():
    # with some draws no column is above the threshold
    torch.manual_seed(0)
    weights = (2 * torch.randn(3, 4, 9, 9) + 2 * torch.randn(9)).double().softmax(-1)
    rows, found = weights.mean(1), []
    for image in rows:
        mean = image.mean(0)
        mean = torch.tensor([m if m > 2 / 9 else 0.0 for m in mean])
        for row in image:
            kept = torch.tensor([w if w > 2 / 9 else 0.0 for w in row])
            lengths = kept.norm() * mean.norm()
            found.append(float(kept @ mean / lengths) if lengths else 0.0)
    assert float(attention_diversification(weights)) == pytest.approx(sum(found) / len(found), abs=1e-6)
    assert 0 < sum(found) < len(found)


@pytest.mark.parametrize("base", ["vit", "distilled", "registers"])
def test_a_block_averages_what_attention_reads_and_nothing_else(base):
    network = filled(BASES[base]())
    plain, prefix = copy.deepcopy(network.blocks[1]), network.num_prefix_tokens
    TAPADL(scales=3, layers=(1,)).apply(network)
    block = filled(network.blocks[1])
    plain.load_state_dict({n: t for n, t in block.state_dict().items() if not n.startswith("pool.")})
    x = torch.randn(2, prefix + 16, 24, dtype=torch.double)
    pooled = torch.cat([x[:, :prefix], block.pool(x[:, prefix:].unflatten(1, (4, 4))).flatten(1, 2)], 1)
    between = x + plain.ls1(plain.attn(plain.norm1(pooled)))
    expected = between + plain.ls2(plain.mlp(plain.norm2(between)))
    torch.testing.assert_close(block(x), expected, rtol=1e-11, atol=1e-11)


def test_without_branches_and_weight_the_network_is_the_bare_one():
    bare = BASES["vit"]().eval()
    same = TAPADL(scales=1, diversity=0.0).apply(copy.deepcopy(bare))
    assert torch.equal(same(images()), bare(images()))
    judged = TAPADL(scales=1).apply(copy.deepcopy(bare))
    torch.testing.assert_close(judged(images()), bare(images()))
    assert not isinstance(judged(images()), WithLosses)
    output = judged.train()(images())
    torch.testing.assert_close(output.output, bare.train()(images()))


def test_the_loss_is_the_mean_over_layers_and_a_step_lowers_it():
    torch.manual_seed(0)
    network = BASES["vit"]()
    with torch.no_grad():
        for block in network.blocks:
            block.attn.qkv.weight.mul_(20)
    TAPADL(scales=1, diversity=3.0, threshold=0.5).apply(network).train()
    seen = []
    for block in network.blocks:
        block.attn.register_forward_hook(lambda m, x, y: seen.append(m.outlet._left[-1]))
    output = network(images(8))
    (loss,) = output.losses.values()
    assert output.losses.keys() == {"attention_diversification"}
    torch.testing.assert_close(loss, 3 * torch.stack(seen).mean())
    assert all(not block.attn.outlet._left for block in network.blocks)
    before = loss.item()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        network(images(8)).losses["attention_diversification"].backward()
        optimizer.step()
    assert network(images(8)).losses["attention_diversification"].item() < before
    assert logits(output).shape == (8, 5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"scales": 0}, "scales must be an integer of at least 1, got 0"),
        ({"diversity": -1.0}, "diversity must be at least 0 and finite, got -1.0"),
        ({"layers": (7,)}, "layers must be different block numbers from 0 to 3"),
    ],
)
def test_what_cannot_be_is_said(arguments, says):
    with pytest.raises(InvalidInput, match=says):
        adapter("tap_adl", **arguments).apply(BASES["vit"]())


@pytest.mark.parametrize("field", ["diversity", "threshold"])
def test_settings_that_are_no_numbers_are_refused(field):
    for value in (float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match=f"{field} must be finite, got {value}"):
            TAPADL(**{field: value})


def test_the_loss_of_halves_is_told_in_fp32():
    weights = (0.1 * torch.randn(2, 3, 40, 40)).softmax(-1).bfloat16()
    loss = attention_diversification(weights, 0.5)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, attention_diversification(weights.float(), 0.5))
    assert 0.9 < loss < 1


def test_blocks_that_timm_computes_again_change_nothing():
    """Neither gradients, nor what norms remember, nor the losses of the next call."""
    torch.manual_seed(0)
    network = TAPADL(scales=3, threshold=0.5).apply(BASES["vit"]()).train()
    twin = copy.deepcopy(network)
    twin.set_grad_checkpointing()
    for each in (network, twin):
        output = each(images())
        (output.output.square().mean() + output.losses["attention_diversification"]).backward()
        assert not any(block.attn.outlet._left for block in each.blocks)
    for (name, p), other in zip(network.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad, other.grad), name
    for (name, buffer), other in zip(network.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(buffer, other), name


def test_features_that_nobody_takes_a_loss_of_do_not_add_up():
    network = TAPADL(scales=1).apply(BASES["vit"]()).train()
    for _ in range(3):
        network.forward_features(images())
    assert {len(block.attn.outlet._left) for block in network.blocks} == {1}
    # the network's own call has its own losses alone
    expected = copy.deepcopy(network)(images()).losses["attention_diversification"]
    assert torch.equal(network(images()).losses["attention_diversification"], expected)


def test_other_grids_are_refused():
    network = TAPADL().apply(BASES["vit"]())
    with pytest.raises(InvalidInput, match="put around a grid of 4 x 4 tokens, got 25"):
        network.blocks[0](torch.randn(1, 26, 24))
