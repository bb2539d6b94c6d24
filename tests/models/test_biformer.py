"""BiFormer: logits of the authors' code, their checkpoints in both forms, sizes, and what is refused."""

import json
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.analysis import attention_rollout
from qna.analysis.cost import total_macs
from qna.mixers import BiLevelRoutingAttention2d
from qna.models import BIFORMER_SIZES, BiFormer
from qna.models.biformer.authors import authors_name
from qna.models.biformer.block import EnhancedFullAttention2d
from qna.models.biformer.reductions import BiFormerHalving
from qna.models.convert import convert
from tests.models.golden import rule
from tests.models.golden_state import drawn_state

GOLDEN = json.loads((Path(__file__).parent / "golden" / "biformer.json").read_text())
NANO = "biformer_nano_32"
SMALL_CASES = ("biformer", "stl", "stl_nchw")


def golden_state(case):
    """What the authors' file of a case would hold."""
    return drawn_state(GOLDEN[case]["shapes"])


def arguments_of(case):
    return {n: v for n, v in GOLDEN[case]["arguments"].items() if n != "num_classes"}


# what the authors' networks compute


@pytest.mark.parametrize(
    "case", [c if c in SMALL_CASES else pytest.param(c, marks=pytest.mark.long) for c in GOLDEN]
)
def test_logits_of_the_authors_network(case, tmp_path):
    golden = GOLDEN[case]
    torch.save({"model": golden_state(case)}, tmp_path / "theirs.pth")
    count = convert(
        tmp_path / "theirs.pth", tmp_path / "ours.safetensors", golden["model"], arguments_of(case)
    )
    assert count == len(golden["shapes"])
    classes = {"num_classes": golden["arguments"].get("num_classes", 1000)}
    model = timm.create_model(
        golden["model"],
        checkpoint_path=str(tmp_path / "ours.safetensors"),
        **arguments_of(case),
        **classes,
    )
    model = model.double().eval()
    for output in golden["outputs"]:
        with torch.no_grad():
            logits = model(torch.from_numpy(rule.images(*output["size"])).double())
        expected = torch.tensor(output["logits"], dtype=torch.float64)
        error = (logits[:, : expected.shape[1]] - expected).abs().max().item()
        assert error < 1e-9 * output["deviation"]
        assert logits.std().item() == pytest.approx(output["deviation"], rel=1e-9)


@pytest.mark.parametrize(
    "change", [{"border": "mask"}, {"topks": [1, 2, 8, None]}, {"enhances_values": True}]
)
def test_the_golden_logits_show_a_change_of_what_is_attended(change):
    golden = GOLDEN["biformer"]
    size, deviation = golden["outputs"][0]["size"], golden["outputs"][0]["deviation"]
    assert size == [96, 70]
    arguments = {**golden["arguments"], **change}
    model = timm.create_model(NANO, **arguments).double().eval()
    theirs = golden_state("biformer")
    model.load_state_dict({n: theirs[authors_name(n, model)].double() for n in model.state_dict()})
    with torch.no_grad():
        logits = model(torch.from_numpy(rule.images(*size)).double())
    difference = (logits - torch.tensor(golden["outputs"][0]["logits"], dtype=torch.float64)).abs().max()
    assert difference > 1e-3 * deviation


# their checkpoints


@pytest.fixture
def theirs(tmp_path):
    """(path, state dict, arguments) of a small file of the authors."""
    state = golden_state("biformer")
    torch.save(state, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth", state, arguments_of("biformer")


def refuse(theirs, message, model=NANO):
    path, state, arguments = theirs
    torch.save(state, path)
    with pytest.raises(InvalidInput, match=message) as raised:
        convert(path, path.parent / "out.safetensors", model, arguments)
    assert not (path.parent / "out.safetensors").exists()
    assert "\n" not in str(raised.value)


def test_a_missing_tensor(theirs):
    del theirs[1]["stages.1.0.attn.lepe.bias"]
    refuse(theirs, r"theirs.pth is no biformer_nano_32: stages.1.0.attn.lepe.bias is missing$")


def test_norms_of_detectors_are_refused_by_name(theirs):
    theirs[1]["extra_norms.0.weight"] = torch.ones(16)
    refuse(theirs, r"it has extra_norms.0.weight, which that model has not$")


def test_a_tensor_of_another_shape(theirs):
    theirs[1]["stages.0.0.pos_embed.weight"] = torch.zeros(16, 1, 5, 5)
    refuse(theirs, r"pos_embed.weight has shape \(16, 1, 5, 5\), not \(16, 1, 3, 3\)")


def test_the_other_form_of_a_checkpoint_is_refused(tmp_path):
    file = (tmp_path / "theirs.pth", golden_state("stl_nchw"), arguments_of("stl"))
    refuse(file, r"is no biformer_stl: stages.0.blocks.0.attn.qkv.qkv.weight is missing", "biformer_stl")


def test_names_of_the_authors():
    with torch.device("meta"):
        small, stl = (BiFormer(BIFORMER_SIZES[n]) for n in ("biformer_small", "biformer_stl"))
    for network in (small, stl):
        keys = network.state_dict()
        assert len({authors_name(n, network) for n in keys}) == len(keys)
    assert authors_name("stem.layers.4.running_var", small) == "downsample_layers.0.4.running_var"
    assert authors_name("stages.1.0.conv.bias", small) == "downsample_layers.1.0.bias"
    assert authors_name("stages.1.0.conv.bias", stl) == "downsample_layers.1.1.bias"
    assert authors_name("stages.1.1.mixer.qkv.bias", small) == "stages.1.0.attn.qkv.qkv.bias"
    assert authors_name("stages.3.4.mixer.qkv.weight", small) == "stages.3.3.attn.qkv.weight"
    assert authors_name("stages.0.1.mlp.fc2.bias", stl) == "stages.0.blocks.1.mlp.2.bias"


# what the sizes say


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [
        ("biformer_tiny", 2.22),
        ("biformer_small", 4.46),
        ("biformer_base", 9.76),
        ("biformer_stl", 4.57),
        ("biformer_stl_nchw", 4.57),
    ],
)
def test_published_multiply_adds(name, gmacs):
    """Those of the authors' code, counted; their README prints 2.2, 4.5, 9.8 and 4.6."""
    with torch.device("meta"):
        model = BiFormer(BIFORMER_SIZES[name])
    assert round(total_macs(model, (1, 3, 224, 224)) / 1e9, 2) == gmacs


def test_the_last_stage_attends_the_whole_map_with_eight_heads_and_no_bias():
    with torch.device("meta"):
        model = BiFormer(BIFORMER_SIZES["biformer_base"])
    for stage in model.stages:
        mixers = [b.mixer for b in stage if hasattr(b, "mixer")]
        if stage is model.stages[-1]:
            assert all(isinstance(m, EnhancedFullAttention2d) for m in mixers)
            assert {m.num_heads for m in mixers} == {8}
            assert all(m.qkv.bias is None and m.out.bias is not None for m in mixers)
        else:
            assert all(isinstance(m, BiLevelRoutingAttention2d) for m in mixers)
            assert {m.dim // m.num_heads for m in mixers} == {32}
            assert {m.border for m in mixers} == {"input"}
    assert [m.topk for s in model.stages for m in s.modules() if hasattr(m, "topk")][::4] == [
        *(1, 4, 16, 16, 16, 16, 16)
    ]


@pytest.mark.parametrize("enhances_values", [False, True])
def test_the_last_attention_by_its_definition(enhances_values):
    torch.manual_seed(0)
    mixer = EnhancedFullAttention2d(16, enhances_values=enhances_values).double()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 3, 5, 16).double()
    q, k, v = (t.reshape(2, 15, 8, 2) for t in mixer.qkv(x).chunk(3, -1))
    shares = torch.einsum("bihd,bjhd->bhij", q / 2**0.5, k).softmax(-1)
    attended = torch.einsum("bhij,bjhd->bihd", shares, v).reshape(2, 3, 5, 16)
    seen = v.reshape(2, 3, 5, 16) if enhances_values else x
    enhanced = nn.functional.conv2d(seen.permute(0, 3, 1, 2), mixer.lepe.weight, padding=2, groups=16)
    expected = mixer.out(attended + enhanced.permute(0, 2, 3, 1) + mixer.lepe.bias)
    torch.testing.assert_close(mixer(x), expected, rtol=1e-10, atol=1e-10)


def test_stochastic_depth_grows_linearly():
    model = timm.create_model(NANO, drop_path_rate=0.3)
    rates = [b.drop_path2.rate for stage in model.stages for b in stage if hasattr(b, "mixer")]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert BIFORMER_SIZES["biformer_small"].drop_path_rate == 0.15


def test_initial_values():
    torch.manual_seed(0)
    linear = [m for m in timm.create_model(NANO).modules() if isinstance(m, nn.Linear)]
    for layer in linear:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.15)
        assert layer.bias is None or not layer.bias.any()


def test_rollout_follows_positions_through_all_stages():
    torch.manual_seed(0)
    model, x = timm.create_model(NANO, border="mask").eval(), torch.randn(2, 3, 37, 50)
    rollout = attention_rollout(model, x)
    assert rollout.relevance.shape == (2, 10, 13)
    torch.testing.assert_close(rollout.relevance.mean((1, 2)), torch.ones(2), rtol=0, atol=1e-4)
    assert len(rollout.layers) == 5


@pytest.mark.parametrize("overlapping", [False, True])
def test_what_halves_a_map_sees_what_it_says(overlapping):
    """A gradient reaches exactly the positions whose share is not zero."""
    halving = BiFormerHalving(4, overlapping=overlapping).eval()
    x = torch.randn(1, 5, 6, 4, requires_grad=True)
    dense = halving.position_step(x)[0].dense(30)[0]
    y = halving(x).flatten(1, 2)
    assert y.shape == (1, 9, 8)
    for i in range(9):
        (grad,) = torch.autograd.grad(y[0, i, 0], x, retain_graph=True)
        assert torch.equal(grad[0].abs().sum(-1).flatten() > 0, dense[i] > 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"depths": (2, 2, 2)}, r"one number per stage in depths=\(2, 2, 2\) and in topks=\(4, None\)"),
        ({"depths": (2, 0)}, r"depths must hold positive integers, got \(2, 0\)"),
        ({"topks": (0, None)}, r"topks must hold positive integers, or None, got \(0, None\)"),
        ({"topks": (17, None)}, r"topk=17 of 4 x 4 regions are not there; 16 is full attention"),
        ({"topks": 4}, "topks must be one number per stage, got 4"),
        ({"head_dim": 5}, "head_dim must divide dim=32, got 5"),
        ({"border": "zero"}, "border 'zero'"),
        ({"dim": 0}, "BiFormerVariant: dim must be an integer of at least 1, got 0"),
        ({"drop_path_rate": 1.5}, "drop_path_rate must be at least 0 and below 1, got 1.5"),
    ],
)
def test_sizes_that_are_none(arguments, told):
    with pytest.raises(InvalidInput, match=told):
        timm.create_model(NANO, **arguments)
