"""Families and their names: counts, the resolver, the door to timm, mixers by stage."""

from dataclasses import dataclass

import pytest
import timm
import torch
from torch import nn

from qna._core.about import About
from qna._core.errors import InvalidInput, UnknownName
from qna.mixers import MIXERS
from qna.models import FAMILIES, QNA_VIT, Family, Variant, create
from qna.models import registry as registered
from qna.models.convert import convert
from qna.models.resolve import known_arguments
from qna.models.timm_entry import register

VARIANTS = [(f, name) for f in FAMILIES.values() for name in f.variants]
NANO = "qna_vit_nano_16"


@pytest.mark.parametrize(("family", "name"), VARIANTS, ids=[name for _, name in VARIANTS])
def test_parameter_counts(family, name):
    with torch.device("meta"):
        model = create(name)
    assert isinstance(model, family.network)
    assert sum(p.numel() for p in model.parameters()) == family.variants[name].parameters
    variant = family.variants[name]
    assert variant.settings()
    for field in variant.settings():
        assert variant.varied({field: getattr(variant, field)})[0].parameters is None


class Toy(nn.Module):
    """The smallest network that timm can make."""

    def __init__(self, width: int, *, in_chans: int = 3, num_classes: int = 1000, twist: bool = False):
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Conv2d(in_chans, width, 2)
        self.fc = nn.Linear(width, num_classes)
        self.twist = twist

    @classmethod
    def of(cls, variant, **arguments):
        return cls(variant.width, **arguments)

    def forward(self, x):
        return self.fc(self.stem(x).mean((2, 3)))


@dataclass(frozen=True)
class ToyVariant(Variant):
    width: int = 4


def toy(*names):
    return Family(
        "toy",
        About("A toy", "Nobody", "2026", None, "", "", "formula"),
        Toy,
        {name: ToyVariant(width=5, image_size=8) for name in names},
        timm_cfg=lambda variant: {"first_conv": "stem", "classifier": "fc", "pool_size": (1, 1)},
        stages=lambda variant: 1,
    )


@pytest.fixture
def a_toy(monkeypatch):
    """A family of one toy, known to timm and convert until the test ends."""
    family = toy("toy_of_five")
    register(family)
    monkeypatch.setitem(registered.FAMILIES, "toy", family)
    yield family
    timm.models._registry._clear_model_entries("toy_of_five")
    timm.models._registry._model_entrypoints.pop("toy_of_five")


def test_a_family_costs_a_row(a_toy):
    model = create("toy_of_five", width=6, num_classes=3, in_chans=1)
    assert model.fc.weight.shape == (3, 6)
    assert model.default_cfg["input_size"] == (3, 8, 8)
    assert model.default_cfg["paper_name"] == "A toy"
    assert timm.create_model("toy_of_five")(torch.zeros(1, 3, 8, 8)).shape == (1, 1000)
    with pytest.raises(
        UnknownName, match="unknown argument of model toy_of_five 'twst'; did you mean 'twist'"
    ):
        create("toy_of_five", twst=True)


def test_a_family_whose_checkpoints_nobody_reads_is_named(a_toy, tmp_path):
    with pytest.raises(
        InvalidInput, match=r"toy_of_five is of toy, of which no published .* those of qna_vit"
    ):
        convert(tmp_path / "a", tmp_path / "b.safetensors", "toy_of_five")


def test_a_name_is_a_string():
    with pytest.raises(InvalidInput, match="by its name, a string, got None"):
        create(None)


def test_a_family_may_be_registered_again():
    entry = timm.models.model_entrypoint("qna_vit_tiny")
    register(FAMILIES["qna_vit"])
    assert timm.models.model_entrypoint("qna_vit_tiny") is entry


def test_the_door_does_not_shadow_a_name_of_timm():
    entry = timm.models.model_entrypoint("resnet18")
    with pytest.raises(
        InvalidInput, match=r"timm has a model 'resnet18' already, .*: call ours 'qna_resnet18'"
    ):
        register(toy("toy_first", "resnet18"))
    assert timm.models.model_entrypoint("resnet18") is entry
    assert not timm.is_model("toy_first")


def test_arguments_are_read_from_signatures():
    assert known_arguments(NANO) >= {"stem", "dim", "window_sizes", "mixers", "drop_path_rate"}
    assert not known_arguments(NANO) & {"stages", "parameters", "self"}
    assert "img_size" in known_arguments("vit_tiny_patch16_224")
    assert "img_size" not in known_arguments("resnet18")
    assert "img_size" not in known_arguments("regnetx_002")
    # which a base class takes, and a dataclass
    assert "img_size" in known_arguments("deit_tiny_distilled_patch16_224")
    assert "group_size" in known_arguments("regnetx_002")


def test_names_that_nobody_has():
    with pytest.raises(UnknownName, match="unknown model 'qna_vit_nanno_16'; did you mean 'qna_vit_nano_16'"):
        create("qna_vit_nanno_16")
    with pytest.raises(InvalidInput, match="Unknown model source 'hub'"):
        create("hub:a/b")


# mixers by stage


def blocks(model):
    return [b for stage in model.stages for b in stage]


EVERY = sorted(
    name
    for name, row in MIXERS.items()
    # those of one size fit no backbone whose stages halve a map of any size
    if row.traits.axes == 2 and row.example.out_space is None and row.traits.any_size
)


@pytest.mark.parametrize("downsample", ["qna", "merge"])
@pytest.mark.parametrize("name", EVERY)
def test_any_mixer_in_the_same_backbone(name, downsample):
    plain = create(NANO, num_classes=5)
    model = create(NANO, mixers=name, downsample=downsample, num_classes=5)
    size = [b.mixer for b in blocks(model) if isinstance(b.shortcut, nn.Identity)]
    assert {type(m).__name__ for m in size} == {name}
    assert [b.mlp.fc1.weight.shape for b in blocks(model)] == [b.mlp.fc1.weight.shape for b in blocks(plain)]
    strided = {type(b.mixer).__name__ for b in blocks(model) if not isinstance(b.shortcut, nn.Identity)}
    assert strided == {"QnA2d" if downsample == "qna" else "PatchMerging"}
    x = torch.randn(2, 3, 21, 30)
    model(x).square().sum().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]
    assert [i["num_chs"] for i in model.feature_info] == [32, 64, 128]


def test_a_mixer_of_its_own_per_stage_with_arguments():
    pair = ["WindowAttention2d", {"num_heads": 8, "window_size": 2}]
    model = timm.create_model(NANO, mixers=(pair, None, "QnA2d"))
    plain = timm.create_model(NANO)
    first, second, third = model.stages
    assert (first[0].mixer.num_heads, first[0].mixer.window_size) == (8, (2, 2))
    assert [type(b.mixer) for b in second] == [type(b.mixer) for b in plain.stages[1]]
    assert [type(b.mixer).__name__ for b in third] == ["QnA2d", "QnA2d"]
    assert third[1].mixer.num_heads == 128 // QNA_VIT[NANO].head_dim


def test_mixers_that_take_turns():
    turns = ["WindowAttention2d", ("QnA2d", {"kernel_size": 5})]
    first, second, third = create(NANO, mixers=(turns, turns, None), qna_blocks=(3, 2, 0)).stages
    assert [type(b.mixer).__name__ for b in first] == ["WindowAttention2d", "QnA2d", "WindowAttention2d"]
    assert [type(b.mixer).__name__ for b in second][1:] == ["WindowAttention2d", "QnA2d"]
    assert first[1].mixer.kernel_size == (5, 5)
    assert [type(b.mixer).__name__ for b in third][1:] == ["WindowAttention2d"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mixers": "WindowAttention"}, "unknown mixer 'WindowAttention'; did you mean 'WindowAttention2d'"),
        ({"mixers": ("QnA2d",)}, r"one name, or one entry for each of 3 stages, got \('QnA2d',\)"),
        ({"mixers": ("QnA2d", 3, None)}, "several of these to take turns, or None, got 3"),
        (
            {"mixers": (("QnA2d", {"kernelsize": 3}), None, None)},
            "unknown argument of QnA2d 'kernelsize'; did you mean 'kernel_size'",
        ),
        ({"mixers": (("QnA2d", {"stride": 2}), None, None)}, "unknown argument of QnA2d 'stride'"),
        ({"mixers": (("QnA2d", {"out_dim": 64}), None, None)}, "QnA2d makes 64 channels of 32"),
        ({"mixers": "QnA1d"}, "QnA1d mixes maps of 1 axes and cannot be the mixer of a block on images"),
        ({"mixers": "QnAPool2d"}, "QnAPool2d pools its map into one vector and cannot be a block's mixer"),
        ({"mixers": "QnAUpsample2d"}, "QnAUpsample2d makes its map finer and cannot be a block's mixer"),
        ({"downsample": "pool"}, "unknown downsample 'pool'"),
        ({"in_chans": 0}, "in_chans must be an integer of at least 1, got 0"),
        ({"patch_size": 0}, "patch_size must be an integer of at least 1, got 0"),
        ({"kernel_size": 0}, "kernel_size must be an integer of at least 1"),
        ({"num_queries": 0}, "num_queries must be an integer of at least 1, got 0"),
        ({"num_classes": -1}, "num_classes must be an integer of at least 0, got -1"),
        ({"qna_blocks": (1, -1, 1)}, "qna_blocks must hold integers of at least 0, got"),
    ],
)
def test_settings_that_cannot_be(arguments, says):
    with pytest.raises(InvalidInput, match=says) as refused:
        create(NANO, **arguments)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan"), float("inf"), "0.1", True])
def test_dropout_before_the_classifier_leaves_something(rate):
    for name in ("qna_focalnet_nano_16", "overlock_nano_32", "biformer_nano_32", "transnext_nano_16"):
        with pytest.raises(InvalidInput, match="drop_rate must be at least 0 and below 1, got"):
            create(name, device="meta", drop_rate=rate)
