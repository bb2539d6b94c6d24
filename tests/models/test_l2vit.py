"""L2ViT: logits of the author's code, their checkpoints, sizes, blocks, and what is refused."""

import json
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.analysis import attention_rollout
from qna.analysis.cost import total_macs
from qna.mixers import LinearAttention2d, LocalConcentration2d, WindowAttention2d
from qna.models import L2VIT, L2ViT
from qna.models.convert import convert
from qna.models.l2vit.authors import authors_name
from qna.models.l2vit.patches import L2ViTStem, NormThenHalve
from tests.models.golden import rule
from tests.models.golden_state import drawn_state

GOLDEN = json.loads((Path(__file__).parent / "golden" / "l2vit.json").read_text())
NANO = "l2vit_nano_32"


def golden_state(case):
    """What the author's file of a case would hold."""
    return drawn_state(GOLDEN[case]["shapes"])


def arguments_of(case):
    return {n: v for n, v in GOLDEN[case]["arguments"].items() if n != "num_classes"}


# what the author's networks compute


@pytest.mark.parametrize(
    "case", [c if c == "l2vit" else pytest.param(c, marks=pytest.mark.long) for c in GOLDEN]
)
def test_logits_of_the_authors_network(case, tmp_path):
    golden = GOLDEN[case]
    torch.save({"model": golden_state(case)}, tmp_path / "theirs.pth")
    count = convert(
        tmp_path / "theirs.pth", tmp_path / "ours.safetensors", golden["model"], arguments_of(case)
    )
    assert count == len(golden["shapes"])
    model = timm.create_model(
        golden["model"],
        checkpoint_path=str(tmp_path / "ours.safetensors"),
        **{"num_classes": 1000, **golden["arguments"]},
    )
    model = model.double().eval()
    for output in golden["outputs"]:
        with torch.no_grad():
            logits = model(torch.from_numpy(rule.images(*output["size"])).double())
        expected = torch.tensor(output["logits"], dtype=torch.float64)
        error = (logits[:, : expected.shape[1]] - expected).abs().max().item()
        assert error < 1e-9 * output["deviation"]
        assert logits.std().item() == pytest.approx(output["deviation"], rel=1e-9)


def change_eps(model):
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6


def mask_padding(model):
    for module in model.modules():
        if isinstance(module, WindowAttention2d):
            module.border = "mask"


def forget_temperatures(model):
    for module in model.modules():
        if isinstance(module, LinearAttention2d):
            nn.init.constant_(module.temperature, 0.25)


def clamp_less(model):
    for module in model.modules():
        if isinstance(module, LinearAttention2d):
            module.clamp = 90.0


def activate_after_norm(model):
    for module in model.modules():
        if isinstance(module, LocalConcentration2d):
            module.act, module.norm = nn.Identity(), nn.Sequential(module.norm, nn.GELU())


@pytest.mark.parametrize(
    "mistake", [change_eps, mask_padding, forget_temperatures, clamp_less, activate_after_norm]
)
def test_the_golden_logits_show_a_mistake(mistake):
    golden = GOLDEN["l2vit"]
    output = golden["outputs"][0]
    model = timm.create_model(NANO, **golden["arguments"]).double().eval()
    theirs = golden_state("l2vit")
    state = {n: theirs[authors_name(n, model)] for n in model.state_dict()}
    model.load_state_dict({n: t.double() if t.is_floating_point() else t for n, t in state.items()})
    mistake(model)
    with torch.no_grad():
        logits = model(torch.from_numpy(rule.images(*output["size"])).double())
    difference = (logits - torch.tensor(output["logits"], dtype=torch.float64)).abs().max()
    assert difference > 1e-7 * output["deviation"]


# their checkpoints


@pytest.fixture
def theirs(tmp_path):
    """(path, state dict, arguments) of a small file of the author."""
    return tmp_path / "theirs.pth", golden_state("l2vit"), arguments_of("l2vit")


def refuse(theirs, message, model=NANO):
    path, state, arguments = theirs
    torch.save(state, path)
    with pytest.raises(InvalidInput, match=message) as raised:
        convert(path, path.parent / "out.safetensors", model, arguments)
    assert not (path.parent / "out.safetensors").exists()
    assert "\n" not in str(raised.value)


def test_a_missing_tensor(theirs):
    del theirs[1]["stages.0.1.attn.temperature"]
    refuse(theirs, r"theirs.pth is no l2vit_nano_32: stages.0.1.attn.temperature is missing$")


def test_backbones_of_detectors_are_refused_by_name(theirs):
    state = theirs[1]
    for leaf in ("weight", "bias"):
        state[f"norm3.{leaf}"] = state.pop(f"norm.{leaf}")
    refuse(
        theirs, r"norm.weight is missing \(and 1 more\); it has norm3.bias, which a l2vit_nano_32 has not$"
    )


def test_a_tensor_of_another_shape(theirs):
    theirs[1]["stages.0.1.local_mp.conv1.weight"] = torch.zeros(16, 1, 5, 5)
    refuse(theirs, r"local_mp.conv1.weight has shape \(16, 1, 5, 5\), not \(16, 1, 7, 7\)")


def test_a_count_of_complex_numbers(theirs):
    name = "downsample_layers.0.proj.proj.1.num_batches_tracked"
    theirs[1][name] = theirs[1][name].to(torch.complex64)
    refuse(theirs, f"{name} is complex64, a count must be an integer")


def test_a_network_without_concentration_refuses_one_that_has_it(theirs):
    theirs[2]["concentration_size"] = 0
    refuse(theirs, r"it has stages\.0\.1\.local_mp\.bn\.bias \(and 32 more\), which that model has not$")


def test_a_checkpoint_of_other_classes(tmp_path):
    """Its head says how many: those of ImageNet-22k are more than a thousand."""
    state = golden_state("l2vit")
    state["head.weight"], state["head.bias"] = torch.randn(33, 128), torch.randn(33)
    torch.save({"model": state}, tmp_path / "theirs.pth")
    convert(tmp_path / "theirs.pth", tmp_path / "o.safetensors", NANO, arguments_of("l2vit"))
    model = timm.create_model(
        NANO, checkpoint_path=str(tmp_path / "o.safetensors"), num_classes=33, **arguments_of("l2vit")
    )
    assert torch.equal(model.head.fc.weight, state["head.weight"])


def test_names_of_the_author():
    with torch.device("meta"):
        network = L2ViT(L2VIT["l2vit_tiny"])
    keys = network.state_dict()
    assert len({authors_name(n, network) for n in keys}) == len(keys)
    for ours, theirs in {
        "stem.layers.4.running_var": "downsample_layers.0.proj.proj.4.running_var",
        "stages.1.0.conv.bias": "downsample_layers.1.proj.bias",
        "stages.1.0.norm.bias": "downsample_layers.1.norm.bias",
        "stages.0.0.near.conv.bias": "stages.0.0.cpe.1.proj.bias",
        "stages.0.1.near.norm.bias": "stages.0.1.norm3.bias",
        "stages.1.2.near.concentration.norm.running_mean": "stages.1.1.local_mp.bn.running_mean",
        "stages.1.2.mixer.temperature": "stages.1.1.attn.temperature",
    }.items():
        assert authors_name(ours, network) == theirs


# what the sizes say


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [("l2vit_tiny", 4.69), ("l2vit_small", 8.98), ("l2vit_base", 15.81), ("l2vit_base_384", 47.32)],
)
def test_multiply_adds(name, gmacs):
    """Counted here at the named size; the author's README prints 4.7, 9.0, 15.9 and 47.5."""
    with torch.device("meta"):
        model = L2ViT(L2VIT[name])
    side = L2VIT[name].image_size
    assert round(total_macs(model, (1, 3, side, side)) / 1e9, 2) == gmacs


def test_windows_and_linear_attention_alternate():
    with torch.device("meta"):
        model = L2ViT(L2VIT["l2vit_base_384"])
    for stage in model.stages:
        blocks = [b for b in stage if hasattr(b, "mixer")]
        for number, block in enumerate(blocks):
            if number % 2:
                assert isinstance(block.mixer, LinearAttention2d)
                assert block.mixer.clamp == 100
                assert isinstance(block.near.concentration, LocalConcentration2d)
            else:
                assert isinstance(block.mixer, WindowAttention2d)
                assert block.mixer.window_size == (12, 12)
                assert block.mixer.border == "zero"
                assert block.mixer.position_table is None
            assert block.mixer.dim // block.mixer.num_heads == 32


@torch.no_grad()
def test_concentration_that_gives_nothing_is_none():
    torch.manual_seed(0)
    model, x = timm.create_model(NANO).double().eval(), torch.randn(2, 3, 33, 47).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    without = timm.create_model(NANO, concentration_size=0).double().eval()
    missing = without.load_state_dict(
        {n: t for n, t in model.state_dict().items() if n in without.state_dict()}
    )
    assert not missing.missing_keys
    assert not torch.allclose(model(x), without(x))
    for module in model.modules():
        if isinstance(module, LocalConcentration2d):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    assert torch.equal(model(x), without(x))


@torch.no_grad()
def test_the_stem_fills_up_an_image_before_its_convolutions():
    torch.manual_seed(0)
    stem, x = L2ViTStem(3, 8).eval(), torch.randn(1, 3, 9, 14)
    assert torch.equal(stem(x), stem(nn.functional.pad(x, (0, 2, 0, 3))))
    assert stem(x).shape == (1, 3, 4, 8)


def test_what_halves_a_map_sees_what_it_says():
    """A gradient reaches exactly the positions whose share is not zero."""
    halving = NormThenHalve(4)
    x = torch.randn(1, 5, 6, 4, requires_grad=True)
    dense = halving.position_step(x)[0].dense(30)[0]
    y = halving(x).flatten(1, 2)
    assert y.shape == (1, 9, 8)
    for i in range(9):
        (grad,) = torch.autograd.grad(y[0, i, 0], x, retain_graph=True)
        assert torch.equal(grad[0].abs().sum(-1).flatten() > 0, dense[i] > 0)


def test_stochastic_depth_grows_linearly_in_all_branches():
    model = timm.create_model(NANO, drop_path_rate=0.3)
    blocks = [b for stage in model.stages for b in stage if hasattr(b, "mixer")]
    assert [b.drop_path2.rate for b in blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert [b.near.drop_path.rate for b in blocks[1::2]] == pytest.approx([0.1, 0.3])


def test_initial_values():
    torch.manual_seed(0)
    for name, layer in timm.create_model(NANO).named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            # of 288 weights at least: 4 deviations of the estimate
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.17), name
            assert not layer.bias.any()
        if isinstance(layer, LinearAttention2d):
            assert layer.temperature.flatten().tolist() == pytest.approx([16**-0.5] * layer.num_heads)


def test_rollout_follows_positions_through_all_stages():
    torch.manual_seed(0)
    # every window divides its map: zeros would take shares that are nobody's
    model, x = timm.create_model(NANO).eval(), torch.randn(2, 3, 64, 32)
    rollout = attention_rollout(model, x)
    assert rollout.relevance.shape == (2, 16, 8)
    torch.testing.assert_close(rollout.relevance.mean((1, 2)), torch.ones(2), rtol=0, atol=1e-4)
    assert len(rollout.layers) == 5


@torch.no_grad()
def test_a_block_looks_where_its_mixer_looks_behind_the_first_convolution():
    torch.manual_seed(0)
    block, x = timm.create_model(NANO).stages[0][1].eval(), torch.randn(1, 6, 5, 32)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    looked, kept = block.position_step(x)
    expected = block.mixer.attention_rows(block.norm1(block.position(x)))
    assert torch.equal(looked.shares, expected.shares)
    assert kept is None
    assert not torch.allclose(looked.shares, block.mixer.attention_rows(block.norm1(x)).shares)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_halves_hold_at_a_large_image(dtype):
    torch.manual_seed(0)
    model = timm.create_model(NANO, num_classes=7, window_size=8).eval()
    for module in model.modules():
        if isinstance(module, LinearAttention2d):
            # sums over keys are then far above what fp16 can hold
            module.qkv.weight *= 500
    x = torch.randn(1, 3, 192, 256)
    expected, y = model(x), model.to(dtype)(x.to(dtype))
    assert y.isfinite().all()
    # some hundred roundings one after the other
    assert (y.float() - expected).abs().max() < 100 * torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"depths": 4}, "depths must be one number per stage, got 4"),
        ({"depths": (2, 0)}, r"depths must hold positive integers, got \(2, 0\)"),
        ({"head_dim": 5}, "head_dim must divide dim=32, got 5"),
        ({"dim": 0}, "L2ViTVariant: dim must be an integer of at least 1, got 0"),
        ({"dim": 3, "head_dim": 1}, "dim must be even, as the stem begins with half of it, got 3"),
        ({"concentration_size": 4}, "kernel_size must be odd, got 4"),
        ({"clamp": -1.0}, r"clamp must be at least 0 and finite, got -1\.0"),
    ],
)
def test_sizes_that_are_none(arguments, told):
    with pytest.raises(InvalidInput, match=told):
        timm.create_model(NANO, **arguments)
