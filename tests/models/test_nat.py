"""NAT, DiNAT and DiNAT_s: logits of the authors' code, their checkpoints, sizes, and what is refused."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from qna._core.errors import InvalidInput
from qna.analysis import attention_rollout
from qna.models import DINAT_SIZES, NAT, NAT_SIZES, NATVariant
from qna.models._parts.patches import PatchHalving
from qna.models.convert import convert
from qna.models.nat.authors import authors_name
from qna.models.nat.reductions import ConvolutionHalving
from tests.models.golden import rule
from tests.models.golden_state import drawn_state

GOLDEN = json.loads((Path(__file__).parent / "golden" / "nat.json").read_text())
SIZES = {**NAT_SIZES, **DINAT_SIZES}
NANO = "nat_nano_16"


def golden_state(case):
    """What the authors' file of a case would hold."""
    return drawn_state(GOLDEN[case]["shapes"])


# what the authors' networks compute


@pytest.mark.parametrize(
    "case",
    [c if c in ("nat", "dinat", "dinat_s") else pytest.param(c, marks=pytest.mark.long) for c in GOLDEN],
)
def test_logits_of_the_authors_network(case, tmp_path):
    golden = GOLDEN[case]
    torch.save(golden_state(case), tmp_path / "theirs.pth")
    arguments = dict(golden["arguments"])
    classes = {"num_classes": arguments.pop("num_classes")} if "num_classes" in arguments else {}
    count = convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", golden["model"], arguments)
    assert count == len(golden["shapes"])
    model = timm.create_model(
        golden["model"], checkpoint_path=str(tmp_path / "ours.safetensors"), **arguments, **classes
    )
    model = model.double().eval()
    for output in golden["outputs"]:
        with torch.no_grad():
            logits = model(torch.from_numpy(rule.images(*output["size"])).double())
        expected = torch.tensor(output["logits"], dtype=torch.float64)
        error = (logits[:, : expected.shape[1]] - expected).abs().max().item()
        assert error < 1e-9 * output["deviation"]
        assert logits.std().item() == pytest.approx(output["deviation"], rel=1e-9)


# their checkpoints


@pytest.fixture
def theirs(tmp_path):
    """(path, state dict, arguments) of a small file of the authors."""
    golden = GOLDEN["nat"]
    arguments = {n: v for n, v in golden["arguments"].items() if n != "num_classes"}
    state = golden_state("nat")
    torch.save(state, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth", state, arguments


def refuse(theirs, message, model=NANO):
    path, _, arguments = theirs
    with pytest.raises(InvalidInput, match=message) as raised:
        convert(path, path.parent / "out.safetensors", model, arguments)
    assert not (path.parent / "out.safetensors").exists()
    assert "\n" not in str(raised.value)


def test_a_damaged_weight_is_not_taken_for_one(theirs):
    path = theirs[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refuse(
        theirs, r"theirs.pth is no PyTorch checkpoint, .*its theirs/data/\d+ is not what its checksum says"
    )


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_a_state_dict_in_a_checkpoint(key, theirs):
    path, state, arguments = theirs
    convert(path, path.parent / "bare.safetensors", NANO, arguments)
    torch.save({key: {f"module.{n}": t for n, t in state.items()}, "epoch": 3}, path)
    convert(path, path.parent / "wrapped.safetensors", NANO, arguments)
    bare, wrapped = (path.parent / f"{n}.safetensors" for n in ("bare", "wrapped"))
    found, expected = load_file(wrapped), load_file(bare)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[n], expected[n]) for n in found)


def test_a_missing_tensor(theirs):
    del theirs[1]["levels.1.blocks.0.attn.rpb"]
    torch.save(theirs[1], theirs[0])
    refuse(theirs, r"theirs.pth is no nat_nano_16: levels.1.blocks.0.attn.rpb is missing$")


def test_a_tensor_too_many(theirs):
    torch.save({**theirs[1], "levels.1.blocks.0.attn.mask": torch.zeros(2)}, theirs[0])
    refuse(theirs, r"it has levels.1.blocks.0.attn.mask, which that model has not$")


def test_a_tensor_of_another_shape(theirs):
    theirs[1]["levels.0.downsample.reduction.weight"] = torch.zeros(64, 32, 5, 5)
    torch.save(theirs[1], theirs[0])
    refuse(theirs, r"reduction.weight has shape \(64, 32, 5, 5\), not \(64, 32, 3, 3\)")


def test_a_tensor_of_whole_numbers(theirs):
    theirs[1]["norm.weight"] = torch.ones(128, dtype=torch.int64)
    torch.save(theirs[1], theirs[0])
    refuse(theirs, r"norm.weight is int64, a weight must be of floating point")


def test_another_model(theirs):
    refuse(theirs, r"is no dinat_s_nano_16: patch_embed.proj.weight is missing \(and \d+", "dinat_s_nano_16")


@pytest.mark.parametrize("content", [b"", b"some text", b"\x80\x02]q\x00.", b"PK\x03\x04"], ids=str)
def test_what_is_no_checkpoint(theirs, content):
    theirs[0].write_bytes(content)
    refuse(theirs, "theirs.pth is no PyTorch checkpoint, or a truncated one: ")


def test_a_file_that_is_not_there(theirs):
    theirs[0].unlink()
    refuse(theirs, "cannot read .*theirs.pth: No such file or directory")


def test_nothing_in_a_checkpoint_is_run(theirs, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"model": theirs[1], "args": Evil()}, theirs[0])
    refuse(theirs, "is no PyTorch checkpoint")
    assert not (tmp_path / "touched").exists()


def test_authors_files_are_read_alone(theirs, tmp_path):
    with pytest.raises(InvalidInput, match=r"out.pth must end in .safetensors"):
        convert(theirs[0], tmp_path / "out.pth", NANO)


def test_names_of_the_authors():
    with torch.device("meta"):
        nat, swin = NAT(NAT_SIZES["nat_base"]), NAT(DINAT_SIZES["dinat_s_tiny"])
    assert authors_name("stem.convs.1.weight", nat) == "patch_embed.proj.1.weight"
    assert authors_name("stem.conv.bias", swin) == "patch_embed.proj.bias"
    assert authors_name("stages.0.2.mixer.qkv.bias", nat) == "levels.0.blocks.2.attn.qkv.bias"
    assert authors_name("stages.2.0.conv.weight", nat) == "levels.1.downsample.reduction.weight"
    assert authors_name("stages.2.1.scale2.gamma", nat) == "levels.2.blocks.0.gamma2"
    assert authors_name("stages.1.0.linear.weight", swin) == "layers.0.downsample.reduction.weight"
    assert authors_name("stages.1.0.norm.bias", swin) == "layers.0.downsample.norm.bias"
    assert authors_name("stages.1.1.mlp.fc1.weight", swin) == "layers.1.blocks.0.mlp.fc1.weight"
    assert authors_name("norm.weight", nat) == "norm.weight"
    assert authors_name("head.fc.bias", nat) == "head.bias"
    for network in (nat, swin):
        assert len({authors_name(n, network) for n in network.state_dict()}) == len(network.state_dict())


# what the sizes say


def meta(name, **arguments):
    with torch.device("meta"):
        return timm.create_model(name, **arguments)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nat_mini", [{1}] * 4),
        ("dinat_mini", [{1, 8}, {1, 4}, {1, 2}, {1}]),
        ("dinat_large_384", [{1, 13}, {1, 6}, {1, 3}, {1}]),
        ("dinat_s_small", [{1, 8}, {1, 4}, {1, 2}, {1}]),
    ],
)
def test_published_dilations(name, expected):
    for stage, dilations in zip(meta(name).stages, expected, strict=True):
        found = [block.mixer.dilation for block in stage if hasattr(block, "mixer")]
        assert {d for d, _ in found} == dilations
        # the first is not dilated, and every second is
        assert found == [(1, 1) if i % 2 == 0 else (max(dilations),) * 2 for i in range(len(found))]


@pytest.mark.parametrize("name", ["nat_tiny", "dinat_large_384_11x11", "dinat_s_base"])
def test_heads_have_32_channels(name):
    mixers = [m for m in meta(name).modules() if hasattr(m, "rpb")]
    assert {m.dim // m.num_heads for m in mixers} == {32}
    assert {m.kernel_size for m in mixers} == {(11, 11) if name.endswith("11x11") else (7, 7)}


@pytest.mark.parametrize("name", ["dinat_mini", "dinat_s_tiny", "dinat_large_384"])
def test_dilated_windows_fit_the_maps_of_the_named_size(name):
    """No larger dilation would: 7 * 8 of 56, 7 * 13 of 96."""
    size = SIZES[name].image_size // 4
    for stage in meta(name).stages:
        span = max(max(b.mixer._spans) for b in stage if hasattr(b, "mixer"))
        assert span <= size < span + 7
        size //= 2


def test_stochastic_depth_grows_linearly():
    model = timm.create_model(NANO, drop_path_rate=0.3)
    rates = [b.drop_path2.rate for stage in model.stages for b in stage if hasattr(b, "mixer")]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert SIZES["nat_base"].drop_path_rate == 0.5


def test_only_tables_of_position_bias_do_not_decay():
    model = timm.create_model(NANO)
    assert model.no_weight_decay() == {n for n, _ in model.named_parameters() if n.endswith("rpb")} != set()


@pytest.mark.parametrize("name", [NANO, "dinat_s_nano_16"])
def test_initial_values(name):
    """As the authors', and in our nano sizes so that linear maps keep the variance."""
    torch.manual_seed(0)
    model = timm.create_model(name, layer_scale=0.25)
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    for layer in linear:
        assert layer.weight.std().item() == pytest.approx(layer.in_features**-0.5, rel=0.3)
    for rpb in [m.rpb for m in model.modules() if hasattr(m, "rpb")]:
        assert rpb.std().item() == pytest.approx(0.02, rel=0.3)
    authors = timm.create_model(name, weight_std=0.02)
    for layer in [m for m in authors.modules() if isinstance(m, nn.Linear)]:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert SIZES["nat_mini"].weight_std == SIZES["dinat_s_large"].weight_std == 0.02
    assert not any(m.bias.any() for m in linear if m.bias is not None)
    assert {g.item() for n, p in model.named_parameters() if n.endswith("gamma") for g in p.detach()} == {
        0.25
    }


def test_dropout_of_the_softmax_is_random_in_training_alone():
    torch.manual_seed(0)
    model, x = timm.create_model(NANO, attn_drop_rate=0.5), torch.randn(2, 3, 16, 16)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize("name", [NANO, "dinat_s_nano_16"])
def test_rollout_follows_positions_through_all_stages(name):
    torch.manual_seed(0)
    model, x = timm.create_model(name).eval(), torch.randn(2, 3, 21, 34)
    rollout = attention_rollout(model, x)
    assert rollout.relevance.shape == (2, 11, 17)
    torch.testing.assert_close(rollout.relevance.mean((1, 2)), torch.ones(2), rtol=0, atol=1e-4)
    assert len(rollout.layers) == 5


def test_what_halves_a_map_sees_what_it_says():
    """A gradient reaches exactly the positions whose share is not zero."""
    for halving in (ConvolutionHalving(4), PatchHalving(4)):
        x = torch.randn(1, 5, 6, 4, requires_grad=True)
        rows, _ = halving.position_step(x)
        y = halving(x).flatten(1, 2)
        assert y.shape == (1, 9, 8)
        dense = rows.dense(30)[0]
        for i in range(9):
            # of one channel: a norm's outputs sum to a constant
            (grad,) = torch.autograd.grad(y[0, i, 0], x, retain_graph=True)
            assert torch.equal(grad[0].abs().sum(-1).flatten() > 0, dense[i] > 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"depths": (2, 2, 2)}, r"one number per stage in depths=\(2, 2, 2\) and in dilations=\(1, 1\)"),
        ({"depths": (2, 0)}, r"depths must hold positive integers, got \(2, 0\)"),
        ({"dilations": 2}, "dilations must be one number per stage, got 2"),
        ({"head_dim": 5}, "head_dim must divide dim=32, got 5"),
        ({"patch_size": 6}, "patch_size must be a power of 2.* got 6; with overlapping=False it may be any"),
        ({"dim": 0}, "NATVariant: dim must be an integer of at least 1, got 0"),
        ({"weight_std": 0.0}, "weight_std must be above 0 or None, got 0.0"),
        ({"drop_path_rate": 1.0}, "stochastic depth: drop_path_rate must be at least 0 and below 1, got 1.0"),
    ],
)
def test_sizes_that_are_none(arguments, told):
    with pytest.raises(InvalidInput, match=told):
        timm.create_model(NANO, **arguments)


def test_images_without_pixels_are_named():
    with pytest.raises(InvalidInput, match=r"only the batch may be empty, got images \(1, 3, 0, 16\)"):
        timm.create_model(NANO)(torch.randn(1, 3, 0, 16))


def test_a_size_is_a_row():
    variant = NATVariant(
        16, (1, 1, 1), 2, (1, 2, 3), head_dim=8, kernel_size=3, patch_size=6, overlapping=False
    )
    model = NAT(variant, num_classes=3)
    maps = model.forward_intermediates(torch.randn(1, 3, 40, 23), intermediates_only=True)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 7, 4), (32, 4, 2), (64, 2, 1)]
