"""FAN and TAP-FAN: the authors' logits and losses, their layouts of checkpoints, counts, all equations."""

import copy
import json
import math
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.tensor_file import read_tensors
from qna._core.with_losses import WithLosses
from qna.analysis.cost import total_macs
from qna.analysis.rollout import attention_rollout
from qna.models.convert import convert
from qna.models.fan import FAN, TAP_FAN, TAP_FAN_FAMILY
from qna.models.fan.blocks import ChannelAttentionMlp, ClassReader, ConvNeXtBlock, FullyAttentionalBlock
from qna.models.fan.maps import FourierPosition, PairedHalving, SampleVarianceNorm
from qna.models.registry import create
from qna.parts.drop_path import DropPath
from tests.mixers.varied_size.test_window_attention import Held
from tests.models.contract import CONTRACT
from tests.models.golden import rule
from tests.models.golden_state import drawn_state

GOLDEN = json.loads((Path(__file__).parent / "golden" / "fan.json").read_text())
CASES = GOLDEN["cases"]
NANO = "tap_fan_nano_hybrid_32"


def converted(case, state, folder):
    torch.save(state, folder / "theirs.pth")
    model, arguments = CASES[case]["model"], CASES[case]["arguments"]
    convert(folder / "theirs.pth", folder / "ours.safetensors", model, arguments)
    return read_tensors(folder / "ours.safetensors")[0]


def filled(module):
    """The module in fp64 with random values everywhere."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for t in module.state_dict().values():
            if t.dtype.is_floating_point:
                t.add_(0.3 * torch.rand(t.shape, generator=generator))
    return module.double().eval()


@pytest.mark.parametrize("case", CASES)
def test_logits_and_losses_of_the_authors_network(case, tmp_path):
    golden = CASES[case]
    state = converted(case, drawn_state(golden["shapes"]), tmp_path)
    tapped = golden["outputs"][0]["diversity"] is not None
    judged = {"diversity": 1.0, "threshold": 1.0} if tapped else {}
    model = timm.create_model(golden["model"], num_classes=10, **golden["arguments"], **judged)
    model.load_state_dict(state)
    model.double().eval()
    for output in golden["outputs"]:
        images = torch.from_numpy(rule.images(*output["size"])).double()
        with torch.no_grad():
            logits = model(images)
        expected = torch.tensor(output["logits"], dtype=torch.float64)
        assert (logits - expected).abs().max().item() < 1e-9 * output["deviation"]
        if tapped:
            model.train()
            for norm in model.modules():
                norm.training = not isinstance(norm, nn.BatchNorm2d)
            with torch.no_grad():
                found = model(images)
            model.eval()
            # a cosine is taken with an epsilon of 1e-8
            assert abs(found.losses["attention_diversification"].item() - output["diversity"]) < 1e-9
            assert 0 < output["diversity"] < 1


@pytest.mark.parametrize("case", ["fan", "tap_hybrid"])
def test_both_of_their_layouts(case, tmp_path):
    """Queries, keys and values of a class token as one linear map, and another name of the positions."""
    state = drawn_state(CASES[case]["shapes"])
    expected = converted(case, state, tmp_path)
    other = {n.replace("pos_embed.", "pos_embeder."): t for n, t in state.items()}
    for kind in ("weight", "bias"):
        for i in range(2):
            place = f"cls_attn_blocks.{i}.attn"
            other[f"{place}.qkv.{kind}"] = torch.cat([other.pop(f"{place}.{n}.{kind}") for n in "qkv"])
    found = converted(case, {"state_dict": other}, tmp_path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("blocks.1.attn.kv.weight", r"blocks\.1\.attn\.kv\.weight is missing beside blocks\.1\.attn\.q"),
        ("cls_attn_blocks.0.attn.v.bias", r"attn\.v\.bias is missing beside cls_attn_blocks\.0\.attn\.k"),
        ("blocks.0.dilation_predictor.proj.1.running_var", r"dilation_predictor\.proj\.1\.running_var"),
        ("cls_token", "cls_token"),
    ],
)
def test_a_file_that_lacks_a_tensor_is_refused(name, says, tmp_path):
    state = drawn_state(CASES["tap_hybrid"]["shapes"])
    del state[name]
    with pytest.raises(InvalidInput, match=says):
        converted("tap_hybrid", state, tmp_path)
    assert not (tmp_path / "ours.safetensors").exists()


def test_weights_of_the_plain_network_are_not_those_of_the_tapped_one(tmp_path):
    torch.save(drawn_state(CASES["fan"]["shapes"]), tmp_path / "theirs.pth")
    with pytest.raises(InvalidInput, match=r"dilation_predictor"):
        convert(
            tmp_path / "theirs.pth", tmp_path / "ours.safetensors", "tap_fan_tiny", CASES["fan"]["arguments"]
        )


def test_counts_are_those_of_the_authors_networks():
    told = {name: variant.parameters for name, variant in {**FAN, **TAP_FAN}.items() if "nano" not in name}
    assert told == GOLDEN["counts"]
    assert round(told["tap_fan_base_hybrid"] / 1e6, 1) == 50.7
    assert told["tap_fan_base_hybrid"] - told["fan_base_hybrid"] == 16 * 16_280


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("fan_tiny", 1_475_800_320),
        ("fan_base_hybrid", 11_772_291_328),
        ("tap_fan_base_hybrid", 11_823_320_320),
    ],
)
def test_multiply_adds(name, macs):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert total_macs(model, (1, 3, 224, 224)) == macs


def test_multiply_adds_of_a_plain_network_by_hand():
    dim, depth, n = 192, 12, 196
    stem = sum(
        9 * before * after * (224 // 2**i) ** 2
        for i, (before, after) in enumerate([(3, 24), (24, 48), (48, 96), (96, 192)], 1)
    )
    attention = n * 4 * dim**2 + 2 * n**2 * dim
    channels = n * (dim**2 + 2 * dim + 8 * dim**2 + 2 * 9 * 4 * dim)
    token = 2 * dim**2 + 197 * (2 * dim**2 + 2 * dim) + 8 * dim**2
    whole = stem + n * 64 * dim + depth * (attention + channels) + 2 * token + dim * 1000
    with torch.device("meta"):
        assert total_macs(timm.create_model("fan_tiny"), (1, 3, 224, 224)) == whole


def test_channel_attention_is_its_definition():
    mlp = filled(ChannelAttentionMlp(6, 10, 2))
    x = torch.randn(2, 3, 4, 6, dtype=torch.double)
    q, k = mlp.q(x).detach().flatten(1, 2), x.flatten(1, 2)
    weights = torch.zeros(2, 6, dtype=torch.double)
    for b in range(2):
        shares = [[math.exp(q[b, n, c]) for n in range(12)] for c in range(6)]
        keys = [[math.exp(k[b, n, c]) for n in range(12)] for c in range(6)]
        for c in range(6):
            head = c // 3
            score = 0.0
            for n in range(12):
                mean = sum(keys[d][n] / sum(keys[d]) for d in range(3 * head, 3 * head + 3)) / 3
                score += shares[c][n] / sum(shares[c]) * mean
            weights[b, c] = mlp.temperature[head].item() / (1 + math.exp(-score))
    torch.testing.assert_close(mlp.channel_weights(x)[:, 0, 0], weights, rtol=1e-12, atol=1e-12)
    z = mlp.fc1(x).permute(0, 3, 1, 2)
    mixed = mlp.conv2(mlp.bn(nn.functional.gelu(mlp.conv1(z))))
    z = (z + mlp.gamma[:, None, None] * mixed).permute(0, 2, 3, 1)
    expected = weights[:, None, None] * mlp.norm(mlp.fc2(z))
    torch.testing.assert_close(mlp(x), expected, rtol=1e-12, atol=1e-12)
    assert mlp.norm.eps == 1e-5
    assert torch.autograd.gradcheck(mlp, (x[:1, :2, :2].clone().requires_grad_(),))


def test_channels_whose_queries_are_even_get_the_mean():
    mlp = filled(ChannelAttentionMlp(6, 10, 2))
    with torch.no_grad():
        mlp.q.weight.zero_()
        mlp.temperature.fill_(1.0)
    x = torch.randn(1, 5, 4, 6, dtype=torch.double)
    # shares of 1 / n meet keys that sum to 1
    assert torch.allclose(mlp.channel_weights(x), torch.tensor(1 / 20, dtype=torch.double).sigmoid())


@pytest.mark.parametrize("size", [(3, 5), (1, 1)])
def test_positions_are_their_formula(size):
    position = filled(FourierPosition(7, 8))
    waves = torch.zeros(*size, 16, dtype=torch.double)
    for i in range(size[0]):
        for j in range(size[1]):
            for axis, (place, n) in enumerate(((i, size[0]), (j, size[1]))):
                angle = 2 * math.pi * (place + 1) / (n + 1e-6)
                for pair in range(4):
                    turned = angle / 10000 ** (2 * pair / 8)
                    waves[i, j, 8 * axis + 2 * pair] = math.sin(turned)
                    waves[i, j, 8 * axis + 2 * pair + 1] = math.cos(turned)
    x = torch.randn(2, *size, 7, dtype=torch.double)
    torch.testing.assert_close(position(x), x + position.linear(waves), rtol=1e-12, atol=1e-12)


def test_positions_of_halves_are_told_apart():
    position = FourierPosition(7).to(torch.bfloat16)
    seen = []
    position.linear.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
    position(torch.zeros(1, 40, 60, 7, dtype=torch.bfloat16))
    (waves,) = seen
    assert len({tuple(row) for row in waves.flatten(0, 1).tolist()}) == 2400


def test_the_norm_of_the_convolutions_divides_by_one_less():
    norm, x = filled(SampleVarianceNorm(5)), torch.randn(3, 2, 5, dtype=torch.double)
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (x.var(-1, keepdim=True, correction=1) + 1e-6).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), expected, rtol=1e-13, atol=1e-13)
    one = filled(SampleVarianceNorm(1))
    assert torch.equal(one(torch.randn(3, 1).double()), one.bias.expand(3, 1))


def test_a_class_token_is_read_by_its_equations():
    reader = filled(ClassReader(6, num_heads=2, hidden=10, depth=2))
    x = torch.randn(2, 3, 2, 6, dtype=torch.double)
    t = torch.cat([reader.token.expand(2, -1, -1), x.flatten(1, 2)], 1)
    for block in reader.blocks:
        n = block.norm1(t)
        query = block.attention.q(n[:, :1]).unflatten(-1, (2, 3)).transpose(1, 2)
        key, value = (
            part.unflatten(-1, (2, 3)).transpose(1, 2) for part in block.attention.kv(n).chunk(2, -1)
        )
        shares = (query @ key.transpose(-1, -2) / 3**0.5).softmax(-1)
        seen = block.attention.out((shares @ value).transpose(1, 2).flatten(2))
        t = block.norm2(t + block.scale1.gamma * torch.cat([seen, n[:, 1:]], 1))
        t = torch.cat([t[:, :1] + block.scale2.gamma * block.mlp(t[:, :1]), 2 * t[:, 1:]], 1)
    torch.testing.assert_close(reader(x)[:, 0], t[:, :1], rtol=1e-12, atol=1e-12)


def test_attention_alone_reads_pooled_tokens():
    block = filled(FullyAttentionalBlock(8, num_heads=2, hidden=12, scales=3))
    x = torch.randn(2, 4, 3, 8, dtype=torch.double)
    between = x + block.scale1(block.mixer(block.norm1(block.pool(x))))
    expected = between + block.scale2(block.mlp(block.norm2(between)))
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
    # with all weight on the branch of the tokens themselves the block is the bare one
    bare = FullyAttentionalBlock(8, num_heads=2, hidden=12).double().eval()
    bare.load_state_dict({n: t for n, t in block.state_dict().items() if not n.startswith("pool.")})
    assert not torch.allclose(block(x), bare(x))
    with torch.no_grad():
        block.pool.proj[1].weight.zero_()
        block.pool.proj[1].bias.fill_(1.0)
        block.pool.proj[2].weight.zero_()
        block.pool.proj[2].weight[0] = 1000.0
    torch.testing.assert_close(block(x), bare(x), rtol=1e-12, atol=1e-12)


def test_the_loss_is_returned_in_training_and_checkpoints_change_no_gradient():
    torch.manual_seed(0)
    model = timm.create_model(NANO, num_classes=5, diversity=2.0, threshold=0.5)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    assert isinstance(model.eval()(images), torch.Tensor)
    twin = copy.deepcopy(model).train()
    model.train().set_grad_checkpointing()
    found, expected = model(images), twin(images)
    assert isinstance(found, WithLosses)
    assert found.losses.keys() == {"attention_diversification"}
    for output in (found, expected):
        (output.output.square().mean() + output.losses["attention_diversification"]).backward()
    assert 0 < found.losses["attention_diversification"] < 2
    for (name, p), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad, other.grad), name
    # what was computed again for the gradient is not there for the next call
    assert not [loss for stage in model.stages[2:] for loss in stage[-1].mixer.take()]
    # and features that no loss is taken of are not added up
    for _ in range(3):
        model.forward_features(images)
    assert all(len(stage[-1].mixer.take()) == 1 for stage in model.stages[2:])


def test_the_loss_reaches_queries_and_keys_alone():
    model = timm.create_model(NANO, num_classes=5, diversity=1.0, threshold=0.5).train()
    model(torch.randn(2, 3, 64, 64)).losses["attention_diversification"].backward()
    block = model.stages[-1][-1]
    query, key, value = block.mixer.qkv.weight.grad.chunk(3)
    assert query.any()
    assert key.any()
    assert not value.any()
    assert block.pool.proj[0].weight.grad.any()
    assert block.mlp.fc1.weight.grad is None
    assert model.stages[-2][-1].mlp.fc1.weight.grad.any()


def test_an_odd_map_is_filled_up_behind_its_end():
    halving = filled(PairedHalving(3, 4, normed=True))
    x = torch.randn(1, 3, 5, 3, dtype=torch.double)
    zeros = torch.zeros(1, 4, 6, 3, dtype=torch.double)
    zeros[:, :3, :5] = halving.norm(x)
    expected = halving.conv(zeros.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(halving(x), expected)
    rows, _ = halving.position_step(x)
    torch.testing.assert_close(rows.shares.sum(-1), torch.ones(1, 6).to(rows.shares))


def test_a_block_of_convnext_is_its_equation():
    block = filled(ConvNeXtBlock(4))
    x = torch.randn(2, 5, 3, 4, dtype=torch.double)
    mixed = block.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    hidden = nn.functional.gelu(block.mlp.fc1(block.norm(mixed)))
    torch.testing.assert_close(block(x), x + block.scale.gamma * block.mlp.fc2(hidden))


@pytest.mark.parametrize("clause", CONTRACT.names(TAP_FAN_FAMILY, costly=False))
def test_the_contract_of_a_hybrid(clause):
    CONTRACT.hold(TAP_FAN_FAMILY, clause, NANO)


def test_relevance_is_followed_through_convolutions_and_pooled_tokens():
    model = timm.create_model(NANO, num_classes=5).eval()
    rolled = attention_rollout(model, torch.randn(1, 3, 48, 64))
    assert rolled.relevance.isfinite().all()
    assert len(rolled.layers) == 4


def test_held_covers_what_lives_in_a_block():
    block = FullyAttentionalBlock(32, num_heads=4, hidden=128, scales=4).eval()
    x = torch.randn(1, 14, 14, 32)
    with Held(x, *block.parameters(), *block.buffers()) as held, torch.no_grad():
        block(x)
    # the weights of the branches beside the maps
    assert 0.9 * held.peak <= block.held(x.shape) <= 1.3 * held.peak


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("fan_tiny", {"num_heads": 5}, "num_heads"),
        ("fan_tiny", {"dim": 36, "num_heads": 4}, "8 must divide dim, got 36"),
        ("fan_tiny", {"conv_dims": (8,)}, r"conv_dims must be of two stages, or empty, got \(8,\)"),
        ("fan_tiny", {"conv_dims": (8, 16)}, r"as many stages, got \(8, 16\) and \(\)"),
        ("tap_fan_tiny", {"diversity": -1.0}, "diversity must be at least 0 and finite, got -1.0"),
        ("tap_fan_tiny", {"scales": -1}, "scales"),
        ("tap_fan_tiny", {"drop_path_rate": 1.0}, "drop_path_rate"),
    ],
)
def test_refuses(name, arguments, message):
    with pytest.raises(InvalidInput, match=message), torch.device("meta"):
        timm.create_model(name, **arguments)


def test_the_example_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "fan.md").read_text()
    exec(page.split("```python\n")[1].split("```")[0], {})


def test_layers_begin_with_a_deviation_of_a_fiftieth():
    torch.manual_seed(0)
    model = timm.create_model(NANO)
    drawn = [
        m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name != "stages.2.1.linear"
    ]
    drawn += [model.stem.conv, model.stages[0][0].conv, model.stages[1][0].conv]
    assert {layer.bias.abs().max().item() for layer in drawn} == {0.0}
    for layer in drawn:
        # a normal cut at two deviations has 0.0176
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_branches_are_left_out_in_training():
    model = create("fan_nano_32", num_classes=5, drop_path_rate=0.25)
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert rates == [0.25] * 4
