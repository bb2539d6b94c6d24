"""TransNeXt: logits of the authors' code, their checkpoints, sizes, and what is refused."""

import json
import logging
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from qna._core.errors import InvalidInput
from qna.analysis import attention_rollout
from qna.analysis.cost import total_macs
from qna.mixers import AggregatedAttention2d, LengthScaledAttention2d
from qna.models import TRANSNEXT, TransNeXt, TransNeXtVariant
from qna.models.convert import convert
from qna.models.transnext.authors import authors_name
from qna.parts.conv_glu import ConvolutionalGLU
from tests.models.golden import rule

GOLDEN = json.loads((Path(__file__).parent / "golden" / "transnext.json").read_text())
LOGITS = [case for case in GOLDEN if case != "dense"]
NANO = "transnext_nano_16"


def golden_state(case):
    """What the authors' file of a case would hold: of a wrong name other values are drawn."""
    golden = GOLDEN[case]
    with torch.device("meta"):
        network = timm.create_model(golden["model"], **golden["arguments"])
    shapes = {authors_name(n, network): t.shape for n, t in network.state_dict().items()}
    shapes = golden.get("shapes", shapes)
    return {n: torch.from_numpy(rule.torch_tensor(n, tuple(shape))) for n, shape in shapes.items()}


# what the authors' networks compute


@pytest.mark.parametrize(
    "case", [c if c in ("transnext", "aaaa") else pytest.param(c, marks=pytest.mark.long) for c in LOGITS]
)
def test_logits_of_the_authors_network(case, tmp_path):
    golden, state = GOLDEN[case], golden_state(case)
    torch.save(state, tmp_path / "theirs.pth")
    arguments = dict(golden["arguments"])
    classes = {"num_classes": arguments.pop("num_classes")} if "num_classes" in arguments else {}
    count = convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", golden["model"], arguments)
    assert count == len(state)
    model = timm.create_model(
        golden["model"], checkpoint_path=str(tmp_path / "ours.safetensors"), **arguments, **classes
    )
    model = model.double().eval()
    for output in golden["outputs"]:
        # one network for all sizes, where the authors build one for each; with gradients another path
        for with_gradients in (False, True) if classes else (False,):
            with torch.set_grad_enabled(with_gradients):
                logits = model(torch.from_numpy(rule.images(*output["size"])).double())
            expected = torch.tensor(output["logits"], dtype=torch.float64)
            error = (logits[:, : expected.shape[1]] - expected).abs().max().item()
            assert error < 1e-9 * output["deviation"]
            assert logits.std().item() == pytest.approx(output["deviation"], rel=1e-9)


def test_maps_of_the_authors_network_at_odd_sizes():
    """Of their code for dense tasks; its parameters are those of the small network without a classifier."""
    golden = GOLDEN["dense"]
    model = timm.create_model(golden["model"], num_classes=0, **golden["arguments"]).double().eval()
    state = golden_state("transnext")
    model.load_state_dict({n: state[authors_name(n, model)] for n in model.state_dict()})
    for output in golden["outputs"]:
        images = torch.from_numpy(rule.images(*output["size"])).double()
        with torch.no_grad():
            maps = model.forward_intermediates(images, norm=True, intermediates_only=True)
        for found, expected in zip(maps, output["maps"], strict=True):
            assert list(found.shape) == expected["shape"]
            assert found.std().item() == pytest.approx(expected["deviation"], rel=1e-9)
            last = torch.tensor(expected["last"], dtype=torch.float64)
            error = (found[1, -1].flatten()[-len(last) :] - last).abs().max().item()
            assert error < 1e-9 * expected["deviation"]


# their checkpoints


@pytest.fixture
def theirs(tmp_path):
    """(path, state dict, arguments) of a small file of the authors."""
    arguments = {n: v for n, v in GOLDEN["transnext"]["arguments"].items() if n != "num_classes"}
    state = golden_state("transnext")
    torch.save(state, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth", state, arguments


def refuse(theirs, message, model="transnext_micro"):
    path, _, arguments = theirs
    with pytest.raises(InvalidInput, match=message) as raised:
        convert(path, path.parent / "out.safetensors", model, arguments)
    assert not (path.parent / "out.safetensors").exists()
    assert "\n" not in str(raised.value)


def test_tables_that_follow_from_sizes_are_left_out_and_told(theirs, caplog):
    path, state, arguments = theirs
    convert(path, path.parent / "bare.safetensors", "transnext_micro", arguments)
    assert not caplog.records
    tables = {
        "relative_pos_index1": torch.zeros(4, dtype=torch.int64),
        "relative_coords_table4": torch.zeros(3, 2),
        "block2.1.attn.seq_length_scale": torch.zeros(9, 1),
        "block2.1.attn.padding_mask": torch.zeros(9, 9, dtype=torch.bool),
    }
    torch.save({"model": {**state, **tables}, "epoch": 3}, path)
    with caplog.at_level(logging.WARNING, "qna"):
        convert(path, path.parent / "with.safetensors", "transnext_micro", arguments)
    (record,) = caplog.records
    assert "4 tensors of" in record.getMessage()
    assert "are left out, as no weights: relative_pos_index1" in record.getMessage()
    bare, found = (load_file(path.parent / f"{n}.safetensors") for n in ("bare", "with"))
    assert found.keys() == bare.keys()
    assert all(torch.equal(found[n], bare[n]) for n in found)


def test_what_is_no_table_is_not_left_out(theirs):
    torch.save({**theirs[1], "block1.0.attn.seq_length": torch.zeros(2)}, theirs[0])
    refuse(theirs, r"it has block1.0.attn.seq_length, which that model has not$")


def test_a_missing_tensor(theirs):
    del theirs[1]["block2.1.attn.learnable_bias"]
    torch.save(theirs[1], theirs[0])
    refuse(theirs, r"theirs.pth is no transnext_micro: block2.1.attn.learnable_bias is missing$")


def test_a_tensor_of_another_shape(theirs):
    theirs[1]["patch_embed3.proj.weight"] = torch.zeros(64, 32, 5, 5)
    torch.save(theirs[1], theirs[0])
    refuse(theirs, r"patch_embed3.proj.weight has shape \(64, 32, 5, 5\), not \(64, 32, 3, 3\)")


def test_another_model(theirs):
    # in which the last stage attends the whole map
    theirs[2]["pool_ratios"] = (4, 2, 1, 1)
    refuse(theirs, r"block3.0.attn.qkv.weight is missing \(and \d more\); it has block3.0.attn.kv.bias")


def test_names_of_the_authors():
    with torch.device("meta"):
        networks = [TransNeXt(TRANSNEXT[n]) for n in ("transnext_micro", "transnext_micro_aaaa")]
    micro, aaaa = networks
    for ours, expected in {
        "stem.conv.weight": "patch_embed1.proj.weight",
        "stem.norm.bias": "patch_embed1.norm.bias",
        "stages.1.0.conv.bias": "patch_embed2.proj.bias",
        "stages.1.0.norm.weight": "patch_embed2.norm.weight",
        "stages.0.0.mixer.kv.weight": "block1.0.attn.kv.weight",
        "stages.2.3.mixer.norm.weight": "block3.2.attn.norm.weight",
        "stages.2.3.mixer.sr.weight": "block3.2.attn.sr.weight",
        "stages.0.1.mixer.queries.embedding": "block1.1.attn.query_embedding",
        "stages.0.1.mixer.queries.temperature": "block1.1.attn.temperature",
        "stages.0.1.mixer.local_bias": "block1.1.attn.relative_pos_bias_local",
        "stages.0.1.mixer.tokens": "block1.1.attn.learnable_tokens",
        "stages.0.1.mixer.token_bias": "block1.1.attn.learnable_bias",
        "stages.3.1.mixer.position_bias.fc2.bias": "block4.0.attn.cpb_fc2.bias",
        "stages.3.1.mixer.qkv.bias": "block4.0.attn.qkv.bias",
        "stages.1.1.mlp.conv.weight": "block2.0.mlp.dwconv.dwconv.weight",
        "stages.1.1.mlp.fc1.bias": "block2.0.mlp.fc1.bias",
        "stages.1.1.norm1.weight": "block2.0.norm1.weight",
        "stages.1.3.weight": "norm2.weight",
        "norm.bias": "norm4.bias",
        "head.fc.bias": "head.bias",
    }.items():
        assert authors_name(ours, micro) == expected
    assert authors_name("stages.3.1.mixer.kv.bias", aaaa) == "block4.0.attn.kv.bias"
    for network in networks:
        assert len({authors_name(n, network) for n in network.state_dict()}) == len(network.state_dict())


# what the sizes say


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [
        # two are counted of the authors' code; the others are as printed, to its digits
        ("transnext_micro", 2.65),
        ("transnext_micro_aaaa", 3.33),
        ("transnext_tiny", 5.7),
        ("transnext_small", 10.3),
        ("transnext_base", 18.4),
    ],
)
def test_published_multiply_adds(name, gmacs):
    with torch.device("meta"):
        model = timm.create_model(name)
    counted = total_macs(model, (1, 3, *(TRANSNEXT[name].image_size,) * 2)) / 1e9
    assert counted == pytest.approx(gmacs, rel=0.005)


def test_which_stage_attends_how():
    with torch.device("meta"):
        micro, aaaa = (timm.create_model(n) for n in ("transnext_micro", "transnext_micro_aaaa"))
    for model, size, ratios in ((micro, 224, (8, 4, 2, None)), (aaaa, 256, (16, 8, 4, 2))):
        for i, (stage, ratio) in enumerate(zip(model.stages, ratios, strict=True)):
            mixers = [b.mixer for b in stage if hasattr(b, "mixer")]
            assert {type(m) for m in mixers} == {
                LengthScaledAttention2d if ratio is None else AggregatedAttention2d
            }
            assert {m.position_bias.pretrain_size for m in mixers} == {(size // 2 ** (i + 2),) * 2}
            assert {m.dim // m.num_heads for m in mixers} == {24}
            if ratio is not None:
                assert {m.pool_ratio for m in mixers} == {(ratio, ratio)}


def test_epsilons_of_norms():
    """Of 1e-5 in the stem, in what halves maps, and in the pooled branch alone."""
    with torch.device("meta"):
        model = timm.create_model("transnext_micro")
    wide = {n for n, m in model.named_modules() if isinstance(m, nn.LayerNorm) and m.eps == 1e-5}
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.LayerNorm)}
    assert wide == {n for n in norms if n.endswith("mixer.norm")} | {
        "stem.norm",
        *(f"stages.{i}.0.norm" for i in (1, 2, 3)),
    }
    assert {model.get_submodule(n).eps for n in norms - wide} == {1e-6}


def test_what_does_not_decay():
    """What the authors name: query_embedding, relative_pos_bias_local, cpb, temperature."""
    model = timm.create_model(NANO)
    theirs = ("query_embedding", "relative_pos_bias_local", "cpb", "temperature")
    expected = {n for n, _ in model.named_parameters() if any(t in authors_name(n, model) for t in theirs)}
    assert model.no_weight_decay() == expected != set()


def test_initial_values():
    torch.manual_seed(0)
    model = timm.create_model("transnext_micro", depths=(1, 1, 1, 1))
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    for m in linear:
        assert m.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert m.bias is None or not m.bias.any()
    conv = model.stages[1][1].mlp.conv
    # two over nine taps of a channel
    assert conv.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.1)
    softplus = nn.functional.softplus(model.stages[0][0].mixer.queries.temperature)
    torch.testing.assert_close(softplus, torch.full_like(softplus, 1 / 0.24))


def test_stochastic_depth_grows_linearly():
    model = timm.create_model(NANO, drop_path_rate=0.3)
    rates = [b.drop_path2.rate for stage in model.stages for b in stage if hasattr(b, "mixer")]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert TRANSNEXT["transnext_base"].drop_path_rate == 0.6


@torch.no_grad()
def test_distances_are_of_the_size_in_training():
    """Another nominal size changes nothing; another in training does."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, 24, 40)
    model = timm.create_model(NANO).eval()
    for p in model.parameters():
        p.add_(0.05 * torch.randn_like(p))
    for arguments, alike in (({"img_size": 64}, True), ({"pretrain_size": 64}, False)):
        other = timm.create_model(NANO, **arguments).eval()
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(x), model(x)) == alike


@torch.no_grad()
def test_cells_of_a_fixed_number():
    model = timm.create_model(NANO, pool_size=3).eval()
    mixers = [m for m in model.modules() if isinstance(m, AggregatedAttention2d)]
    assert mixers
    for size, cells in ((16, (3, 3)), (64, (3, 3)), (4, (2, 2))):
        x = torch.randn(1, 3, size, size)
        assert model(x).isfinite().all()
        assert tuple(a.cells for a in mixers[0]._cells((1, size // 2, size // 2, 32))) == cells


def test_rollout_follows_positions_through_all_stages():
    torch.manual_seed(0)
    model, x = timm.create_model(NANO).eval(), torch.randn(2, 3, 21, 34)
    rollout = attention_rollout(model, x)
    assert rollout.relevance.shape == (2, 11, 17)
    torch.testing.assert_close(rollout.relevance.mean((1, 2)), torch.ones(2), rtol=0, atol=1e-4)
    assert len(rollout.layers) == 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"depths": (2, 2, 2)}, r"one number per stage in each of depths=\(2, 2, 2\), mlp_ratios=\(3, 3\)"),
        ({"depths": (2, 0)}, r"depths must hold positive integers, got \(2, 0\)"),
        ({"pool_ratios": 2}, "pool_ratios must be one number per stage, got 2"),
        ({"head_dim": 5}, "head_dim must divide dim=32, got 5"),
        ({"pretrain_size": 0}, "pretrain_size must be an integer of at least 1, got 0"),
        ({"kernel_size": 2}, "kernel_size must be odd, got 2"),
        ({"attn_drop_rate": 1.0}, "attn_drop must be at least 0 and below 1, got 1.0"),
    ],
)
def test_sizes_that_are_none(arguments, told):
    with pytest.raises(InvalidInput, match=told):
        timm.create_model(NANO, **arguments)


def test_a_size_is_a_row():
    variant = TransNeXtVariant(
        16, (1, 1, 1), (2, 2, 2), (4, 2, 1), head_dim=8, patch_size=6, kernel_size=5, pretrain_size=48
    )
    model = TransNeXt(variant, num_classes=3)
    maps = model.forward_intermediates(torch.randn(1, 3, 40, 23), intermediates_only=True)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 7, 4), (32, 4, 2), (64, 2, 1)]


# the gated MLP


@torch.no_grad()
def test_a_convolution_of_the_middle_tap_alone_leaves_a_geglu():
    torch.manual_seed(0)
    glu, x = ConvolutionalGLU(6, 5).double(), torch.randn(2, 4, 7, 6, dtype=torch.float64)
    glu.conv.weight.zero_()[:, 0, 1, 1] = 1
    glu.conv.bias.zero_()
    a, v = glu.fc1(x).chunk(2, -1)
    torch.testing.assert_close(glu(x), glu.fc2(nn.functional.gelu(a) * v), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_the_gate_alone_is_convolved():
    torch.manual_seed(0)
    glu, x = ConvolutionalGLU(3, 2).double(), torch.randn(1, 5, 5, 3, dtype=torch.float64)
    a, v = glu.fc1(x).chunk(2, -1)
    gate = nn.functional.conv2d(a.permute(0, 3, 1, 2), glu.conv.weight, glu.conv.bias, padding=1, groups=2)
    expected = glu.fc2(nn.functional.gelu(gate).permute(0, 2, 3, 1) * v)
    torch.testing.assert_close(glu(x), expected, rtol=1e-12, atol=1e-12)
