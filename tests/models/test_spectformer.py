"""SpectFormer: logits of the authors' code, their layout of checkpoints, counts, the second head."""

import json
from pathlib import Path

import pytest
import timm
import torch

from qna._core.errors import InvalidInput
from qna._core.with_losses import WithLosses
from qna.analysis.cost import total_macs
from qna.mixers import SpectralGating2d
from qna.models._parts.class_token import ClassAttention
from qna.models.convert import convert
from qna.models.spectformer import SPECTFORMER, SPECTFORMER_H
from tests.models.golden import rule

GOLDEN = json.loads((Path(__file__).parent / "golden" / "spectformer.json").read_text())
NANO = "spectformer_h_nano_32"


def authors_file(case, path):
    """A file as the authors' code would write it."""
    shapes = {n: tuple(shape) for n, shape in GOLDEN[case]["shapes"].items()}
    counters = {n for n in shapes if n.endswith("num_batches_tracked")}
    state = {n: torch.from_numpy(rule.torch_tensor(n, s)) for n, s in shapes.items() if n not in counters}
    state |= {n: torch.zeros((), dtype=torch.int64) for n in counters}
    torch.save(state, path)
    return state


@pytest.mark.parametrize("case", GOLDEN)
def test_logits_of_the_authors_network(case, tmp_path):
    golden = GOLDEN[case]
    authors_file(case, tmp_path / "theirs.pth")
    arguments = dict(golden["arguments"])
    classes = arguments.pop("num_classes")
    convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", golden["model"], arguments)
    model = timm.create_model(
        golden["model"],
        checkpoint_path=str(tmp_path / "ours.safetensors"),
        num_classes=classes,
        **arguments,
    )
    model = model.double().eval()
    for output in golden["outputs"]:
        with torch.no_grad():
            logits = model(torch.from_numpy(rule.images(*output["size"])).double())
        expected = torch.tensor(output["logits"], dtype=torch.float64)
        assert (logits - expected).abs().max().item() < 1e-9 * output["deviation"]


@pytest.mark.parametrize("name", ["q.weight", "kv.bias"])
def test_a_file_without_queries_or_keys_is_refused(name, tmp_path):
    state = authors_file("stages", tmp_path / "theirs.pth")
    del state[f"block3.0.attn.{name}"]
    torch.save(state, tmp_path / "theirs.pth")
    arguments = {k: v for k, v in GOLDEN["stages"]["arguments"].items() if k != "num_classes"}
    with pytest.raises(InvalidInput, match=r"block3\.0\.attn"):
        convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", "spectformer_h_s", arguments)
    assert not (tmp_path / "ours.safetensors").exists()


@pytest.mark.parametrize("name", ["q.weight", "kv.bias"])
def test_queries_or_keys_that_are_integers_are_refused(name, tmp_path):
    """Both are put together before dtypes are compared, and the other half is of floating point."""
    state = authors_file("stages", tmp_path / "theirs.pth")
    state[f"block3.0.attn.{name}"] = state[f"block3.0.attn.{name}"].to(torch.int32)
    torch.save(state, tmp_path / "theirs.pth")
    arguments = {k: v for k, v in GOLDEN["stages"]["arguments"].items() if k != "num_classes"}
    with pytest.raises(InvalidInput, match=rf"block3\.0\.attn\.{name} is int32, a weight must be of float"):
        convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", "spectformer_h_s", arguments)


@pytest.mark.parametrize("name", [*SPECTFORMER, *SPECTFORMER_H])
def test_counts(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    variant = {**SPECTFORMER, **SPECTFORMER_H}[name]
    assert sum(p.numel() for p in model.parameters()) == variant.parameters


@pytest.mark.parametrize(
    ("name", "count"),
    [("spectformer_h_s", 22_226_928), ("spectformer_h_b", 33_052_880), ("spectformer_h_l", 54_675_792)],
)
def test_published_counts_hold_the_second_head(name, count):
    with torch.device("meta"):
        model = timm.create_model(name, aux_weight=0.5)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("spectformer_ti", 1_840_539_648),
        ("spectformer_xs", 3_993_934_848),
        ("spectformer_s", 6_628_174_848),
        ("spectformer_b", 11_560_718_336),
        ("spectformer_h_s", 4_044_822_656),
        ("spectformer_h_b", 6_586_900_480),
        ("spectformer_h_l", 13_181_277_696),
    ],
)
def test_multiply_adds(name, macs):
    """At 224 x 224; of those of one row 1.8, 4.0, 6.6 and 11.5 thousand million are published."""
    with torch.device("meta"):
        model = timm.create_model(name)
    assert total_macs(model, (1, 3, 224, 224)) == macs


@pytest.mark.parametrize(
    ("name", "gmacs"), [("spectformer_h_s", 3.9), ("spectformer_h_b", 6.3), ("spectformer_h_l", 12.7)]
)
def test_published_multiply_adds_hold_the_second_head_and_not_what_queries_meet(name, gmacs):
    with torch.device("meta"):
        model = timm.create_model(name, aux_weight=0.5)
    variant, size = SPECTFORMER_H[name], (1, 3, 224, 224)
    # queries with keys and shares with values, on maps of 14 x 14 and 7 x 7
    met = sum(
        2 * depth * positions**2 * dim
        for depth, dim, positions in zip(variant.depths[2:], variant.dims[2:], (196, 49), strict=True)
    )
    assert round((total_macs(model, size) - met) / 1e9, 1) == gmacs
    with torch.device("meta"):
        without = total_macs(timm.create_model(name), size)
    assert total_macs(model, size) - without == 49 * variant.dims[-1] * 1000


@pytest.mark.parametrize("pixels", [224, 100, 36])
def test_filters_are_learned_at_the_size_of_their_maps(pixels):
    """Also where halves are rounded up: 25, 13 and 7, or 9, 5 and 3."""
    model = timm.create_model("spectformer_h_s", image_size=pixels, spectral=3, device="meta")
    maps = model.forward_intermediates(torch.empty(1, 3, pixels, pixels, device="meta"), [0, 1, 2])[1]
    for stage, found in zip(model.stages, maps, strict=False):
        sizes = {m.map_size for m in stage.modules() if isinstance(m, SpectralGating2d)}
        assert sizes == {tuple(found.shape[2:])}
    row = timm.create_model("spectformer_xs", image_size=pixels, device="meta")
    side = -(-pixels // 16)
    assert row.stages[0][0].mixer.map_size == (side, side)
    assert row.stem.map_size == side


def test_multiply_adds_of_the_class_attention_by_hand():
    layer, tokens = ClassAttention(6, 2), (2, 5, 6)
    assert total_macs(layer, tokens) == 2 * (6 * 6 + 5 * 6 * 12 + 2 * 5 * 6 + 6 * 6)


def test_the_second_head_is_supervised_in_training():
    model = timm.create_model(NANO, num_classes=5, aux_weight=0.5).train()
    x = torch.randn(2, 3, 40, 24)
    found = model(x)
    assert isinstance(found, WithLosses)
    assert found.output.shape == (2, 5)
    assert found.supervised["positions"].output.shape == (2, 5, 3, 5)
    expected = model.aux_head(model.last_norm(model.forward_features(x)))
    torch.testing.assert_close(found.supervised["positions"].output, expected)
    assert found.supervised["positions"].weight == 0.5
    (found.output.sum() + found.supervised["positions"].output.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_second_head_comes_and_goes_with_the_first():
    model = timm.create_model(NANO, num_classes=0, aux_weight=0.5)
    assert model.aux_head is None
    assert isinstance(model(torch.randn(2, 3, 32, 32)), torch.Tensor)
    for classes in (5, 0, 7):
        model.reset_classifier(classes)
        found = model(torch.randn(2, 3, 32, 32))
        assert isinstance(found, WithLosses) == bool(classes)
        if classes:
            assert found.supervised["positions"].output.shape == (2, 4, 4, classes)
            # drawn as those of the constructor: 4 deviations of the estimate
            assert model.aux_head.weight.std().item() == pytest.approx(0.02, rel=0.2)
    with pytest.raises(InvalidInput, match="num_classes must be an integer of at least 0, got -1"):
        model.reset_classifier(-1)


@torch.no_grad()
def test_the_class_attention_comes_and_goes_with_its_pooling():
    """A network made without pooling and one that lost it are one and the same."""
    torch.manual_seed(0)
    x, model = torch.randn(2, 3, 32, 32), timm.create_model(NANO, num_classes=5, aux_weight=0.5).eval()
    for pool in ("", "qnav1"):
        other = timm.create_model(NANO, num_classes=5, aux_weight=0.5, global_pool=pool).eval()
        names = list(other.state_dict())
        other.reset_classifier(5, "avg")
        assert list(other.state_dict()) == list(model.state_dict())
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(x), model(x))
        other.reset_classifier(5, pool)
        assert list(other.state_dict()) == names
    features = model.forward_features(x)
    for pool in ("avg", "qnav2"):
        model.reset_classifier(5, pool)
        positions = model.position_logits(features)
        first = model.head(model.last_norm(model.class_block(features) if model.class_block else features))
        assert torch.equal(model(x), first + positions.amax((1, 2)) / 2)


def test_pruning_leaves_a_head_that_is_to_stay():
    for classes in (0, 5):
        model = timm.create_model(NANO, num_classes=classes, aux_weight=0.5).eval()
        x = torch.randn(2, 3, 32, 32)
        expected = model(x)
        model.prune_intermediate_layers([1], prune_head=False)
        assert torch.equal(model(x), expected)
        model.prune_intermediate_layers([1])
        assert model.class_block is model.aux_head is None
        model.reset_classifier(3, "avg")
        assert model.class_block is model.aux_head is None
        assert model(x).shape == (2, 3)


def test_position_logits_need_the_second_head():
    with pytest.raises(InvalidInput, match="aux_weight"):
        timm.create_model(NANO).position_logits(torch.zeros(1, 2, 2, 64))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("spectformer_xs", {"spectral": 13}, "at most all are spectral, got 13"),
        ("spectformer_h_s", {"spectral": 5}, "at most all are spectral, got 5"),
        ("spectformer_h_s", {"depths": (1, 2)}, "one number per stage"),
        ("spectformer_h_s", {"depths": (1, 2, 0, 1)}, "positive integers"),
        ("spectformer_h_s", {"dims": 64}, "one number per stage"),
        ("spectformer_h_s", {"aux_weight": -1.0}, "aux_weight must be at least 0 and finite, got -1.0"),
        ("spectformer_h_s", {"aux_weight": float("inf")}, "at least 0 and finite, got inf"),
    ],
)
def test_refuses(name, arguments, message):
    variant = {**SPECTFORMER, **SPECTFORMER_H}[name]
    with pytest.raises(InvalidInput, match=message):
        variant.varied(arguments)


def test_the_example_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "spectformer.md").read_text()
    exec(page.split("```python\n")[1].split("```")[0], {})


@pytest.mark.parametrize("name", [NANO, "spectformer_ti"])
def test_linear_layers_begin_with_a_deviation_of_a_fiftieth(name):
    torch.manual_seed(0)
    model = timm.create_model(name)
    drawn = torch.cat([m.weight.flatten() for m in model.modules() if isinstance(m, torch.nn.Linear)])
    # a normal cut at two deviations has 0.0176
    assert drawn.std().item() == pytest.approx(0.02, rel=0.02)
