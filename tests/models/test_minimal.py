"""The minimal transformer: logits of the re-implementation, published counts, tokens, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput, UnknownName
from qna.analysis.cost import total_macs
from qna.analysis.footprint import peak_bytes
from qna.models import MINIMAL, MinimalTransformer, create
from qna.models.convert import convert
from tests.models import contract
from tests.models.golden import rule
from tests.models.minimal_names import CASES, CLASSES, SIZES, SMALL, their_name

GOLDEN = json.loads((Path(__file__).parent / "golden" / "minimal.json").read_text())
NANO = "minimal_mnist_minimal"


def golden_model(case, size):
    """Ours with the weights by which the logits of a case were made."""
    heads, mlp, qk, value = CASES[case]
    model = create(
        NANO, **SMALL, num_heads=heads, mlp_ratio=int(mlp), qk=qk, value=value, img_size=size,
        num_classes=CLASSES,
    ).double().eval()  # fmt: skip
    state = {
        n: torch.from_numpy(rule.torch_tensor(their_name(n), tuple(t.shape)))
        for n, t in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model


def error_of(model, case, number):
    """The largest difference of logits, in units of their spread."""
    golden = GOLDEN[case][number]
    with torch.no_grad():
        logits = model(torch.from_numpy(rule.images(*SIZES[number])).double())
    return (logits - torch.tensor(golden["logits"], dtype=torch.float64)).abs().max().item() / golden[
        "deviation"
    ]


@pytest.mark.parametrize("number", range(len(SIZES)))
@pytest.mark.parametrize("case", CASES)
def test_logits_of_the_re_implementation(case, number):
    assert error_of(golden_model(case, SIZES[number]), case, number) < 1e-9


def scale_by_all_channels(model):
    for module in model.modules():
        if hasattr(module, "scale"):
            module.scale = module.dim**-0.5


def forget_the_bias(model):
    for module in model.modules():
        if hasattr(module, "qk"):
            nn.init.zeros_(module.qk.bias)


def norm_before(model):
    for stage in model.stages:
        block = stage[0]
        stage[0] = nn.Sequential(block, block.norm1)


def pool_the_last(model):
    model.head.pool = nn.Identity()
    model.head.pool.forward = lambda x: x[:, 0, -1]


def shift_positions(model):
    model.stem.position.data = model.stem.position.data.roll(1, 1)


@pytest.mark.parametrize(
    ("mistake", "case"),
    [
        (scale_by_all_channels, "full-full-4"),
        (scale_by_all_channels, "symmetric-full-4"),
        (forget_the_bias, "collapsed-none-1"),
        (norm_before, "collapsed-none-1"),
        (pool_the_last, "collapsed-none-1"),
        (shift_positions, "full-full-mlp-1"),
    ],
)
def test_the_golden_logits_show_a_mistake(mistake, case):
    model = golden_model(case, SIZES[1])
    mistake(model)
    assert error_of(model, case, 1) > 1e-6


# what the sizes say


PUBLISHED = [name for name, variant in MINIMAL.items() if variant.published]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    """With the norms that the re-implementation makes and does not use, two vectors a block without MLP."""
    variant = MINIMAL[name]
    model = create(name, in_chans=variant.channels, device="meta")
    without_mlp = [b for stage in model.stages for b in stage if b.mlp is None]
    dead = len(without_mlp) * 2 * variant.dim
    assert variant.unused == dead
    assert sum(p.numel() for p in model.parameters()) + dead == variant.published


def test_the_list_of_published_counts():
    told = {
        "mnist": {156_298, 131_338, 81_418, 106_378, 68_938, 59_722, 31_498},
        "cifar": {165_450, 90_570, 115_530, 78_090, 68_874, 40_650},
    }
    for data, counts in told.items():
        assert {MINIMAL[name].published for name in PUBLISHED if data in name} == counts


def test_up_to_nine_parameters_in_ten_are_saved():
    """Beside a network whose MLPs are four times as wide as it is, as usual."""
    whole = create("minimal_mnist_full_mlp", mlp_ratio=4, in_chans=1, device="meta")
    assert sum(p.numel() for p in whole.parameters()) == 304_906
    assert round(100 * (1 - MINIMAL[NANO].published / 304_906), 1) == 89.7


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        # patches, then blocks of 17 tokens, then the classifier of one
        ("minimal_mnist_minimal", 16 * 49 * 64 + 6 * 17 * 64 * (64 + 2 * 17) + 640),
        ("minimal_mnist_symmetric_4", 16 * 49 * 64 + 6 * 17 * 64 * (16 + 2 * 64 + 2 * 17) + 640),
        ("minimal_mnist_full_mlp", 16 * 49 * 64 + 6 * 17 * 64 * (6 * 64 + 2 * 17) + 640),
    ],
)
def test_multiply_adds(name, macs):
    assert total_macs(create(name, in_chans=1, device="meta"), (1, 1, 28, 28)) == macs


def test_bytes_held():
    """The minimum at 17 tokens: the input, queries and what comes of them; no scores."""
    model = create(NANO, in_chans=1, device="meta")
    assert peak_bytes(model, (1, 1, 28, 28)) == 4 * 3 * 17 * 64


# tokens


@torch.no_grad()
def test_maps_are_the_tokens_behind_the_first():
    model = contract.build(NANO)
    x = torch.randn(2, 3, 30, 50)
    tokens, maps = model.forward_intermediates(x)
    assert tokens.shape == (2, 1, 1 + 5 * 8, 64)
    assert torch.equal(tokens, model.forward_features(x))
    assert [m.shape for m in maps] == [(2, 64, 5, 8)] * 6
    assert torch.equal(maps[-1].flatten(2), tokens[:, 0, 1:].transpose(1, 2))
    (normed,) = model.forward_intermediates(x, 1, norm=True, intermediates_only=True)
    assert torch.equal(normed, maps[-1])
    rows = model.forward_intermediates(x, [2], output_fmt="NHWC", intermediates_only=True)
    assert torch.equal(rows[0], maps[2].permute(0, 2, 3, 1))
    early, (second,) = model.forward_intermediates(x, [1], stop_early=True)
    assert torch.equal(second.flatten(2), early[:, 0, 1:].transpose(1, 2))
    for pool, expected in (("token", tokens[:, 0, 0]), ("avg", tokens[:, 0, 1:].mean(1))):
        model.reset_classifier(0, pool)
        torch.testing.assert_close(model(x), expected)
    assert model.prune_intermediate_layers([2]) == [2]
    assert torch.equal(model.forward_intermediates(x, [2], intermediates_only=True)[0], maps[2])
    model.reset_classifier(3, "token")
    assert model(x).shape == (2, 3)


@torch.no_grad()
def test_the_class_token_is_read_and_asked():
    model = create(NANO).eval()
    x = torch.randn(1, 3, 28, 28)
    before = model(x)
    model.stem.class_token += 0.5
    changed = model(x)
    assert not torch.allclose(before, changed)
    # its position stands beside it, and nothing tells the two apart
    model.stem.class_token -= 0.5
    model.stem.position[:, :1] += 0.5
    torch.testing.assert_close(model(x), changed)


def test_positions_of_another_size_are_resized():
    stem = create(NANO, img_size=(14, 21)).stem
    assert stem.position.shape == (1, 7, 64)
    nn.init.zeros_(stem.conv.weight)
    nn.init.zeros_(stem.conv.bias)
    stem.eval()
    with torch.no_grad():
        own = stem(torch.zeros(1, 3, 14, 21))[0, 0]
        torch.testing.assert_close(own[1:], stem.position[0, 1:])
        stem.position[0, 1:] = 2.0
        other = stem(torch.zeros(1, 3, 40, 8))[0, 0]
    # a table that is the same everywhere is so at any size, and the class token has one place
    torch.testing.assert_close(other[1:], torch.full((6 * 2, 64), 2.0))
    torch.testing.assert_close(other[0], own[0])


def test_dropout_in_training_alone():
    model = create(NANO, drop=0.3)
    x = torch.randn(2, 3, 28, 28)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("clause", ["grad_checkpointing_changes_no_gradient", "torch_fx"])
def test_the_clauses_that_dropout_breaks_hold_without_it(clause, monkeypatch):
    """The family is exempt from both as published."""
    plain = contract.build
    monkeypatch.setattr(contract, "build", lambda name, **arguments: plain(name, drop=0.0, **arguments))
    getattr(contract, clause)(NANO)


def test_a_triangle_trains_where_normal_entries_see_one_token():
    """Its scores begin near 1; of normal entries, as published, all the softmax is with the token itself."""
    torch.manual_seed(0)
    attention = create("minimal_mnist_symmetric").stages[0][0].attention
    x = nn.functional.layer_norm(torch.randn(4, 17, 64), (64,))
    own = attention.weights(x).diagonal(dim1=-2, dim2=-1)
    assert 0.08 < own.mean() < 0.25
    nn.init.normal_(attention.triangle)
    assert attention.weights(x).diagonal(dim1=-2, dim2=-1).mean() > 0.99


def test_nothing_to_convert(tmp_path):
    with pytest.raises(InvalidInput, match=f"{NANO} is of minimal, of which no published checkpoint"):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors", NANO)


@pytest.mark.parametrize(
    ("arguments", "kind", "told"),
    [
        ({"qk": "tied"}, UnknownName, "unknown qk 'tied'"),
        ({"value": "symmetric"}, UnknownName, "unknown value 'symmetric'"),
        ({"num_heads": 3}, InvalidInput, "num_heads must divide dim, got num_heads=3 and dim=64"),
        ({"mlp_ratio": -1}, InvalidInput, "mlp_ratio must be an integer of at least 0, got -1"),
        ({"drop": 1.0}, InvalidInput, "drop must be at least 0 and below 1, got 1.0"),
        ({"img_size": 0}, InvalidInput, "img_size must be an integer of at least 1"),
        ({"global_pool": "qnav1"}, UnknownName, "unknown global_pool 'qnav1'"),
        ({"published": 3}, UnknownName, "unknown argument of model minimal_mnist_minimal 'published'"),
    ],
)
def test_what_is_refused(arguments, kind, told):
    with pytest.raises((kind, InvalidInput), match=told) as refused:
        create(NANO, **arguments)
    assert "\n" not in str(refused.value)


def test_the_class_itself_takes_a_size():
    model = MinimalTransformer(MINIMAL[NANO], img_size=[14, 21], num_classes=4)
    assert model.stem.map_size == (2, 3)
    assert model(torch.zeros(1, 3, 14, 21)).shape == (1, 4)
