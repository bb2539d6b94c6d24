"""FocalNet: logits of the authors' code, their checkpoints and timm's, sizes, and what is refused."""

import json
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.tensor_file import read_metadata, read_tensors, write_tensors
from qna.analysis.cost import total_macs
from qna.cli.convert import main
from qna.models import FOCALNET, FocalNet, FocalNetVariant, create
from qna.models.convert import convert
from qna.models.focalnet.authors import authors_name, from_authors, timms_name
from qna.models.focalnet.blocks import FocalHalving, FocalStem, PostNormBlock
from tests.mixers.focal.test_modulation import Held
from tests.models.golden import rule
from tests.models.golden_state import drawn_state
from tests.models.left_out import leave_out

GOLDEN = json.loads((Path(__file__).parent / "golden" / "focalnet.json").read_text())
NANO = "qna_focalnet_nano_16"
LARGE = {"post_norm": True, "layer_scale": 0.5, "overlapping": True, "patch_size": 4}


def golden_state(case):
    """What the authors' file of a case would hold."""
    return drawn_state(GOLDEN[case]["shapes"])


def filled(network):
    """Every tensor far from where it starts, in float64."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.double().eval()


# what the authors' networks compute


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.long if c == "focalnet_tiny_srf" else ()) for c in GOLDEN]
)
def test_logits_of_the_authors_network(case, tmp_path):
    golden = GOLDEN[case]
    torch.save(golden_state(case), tmp_path / "theirs.pth")
    arguments = dict(golden["arguments"])
    count = convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", golden["model"], arguments)
    model = create(golden["model"], checkpoint_path=str(tmp_path / "ours.safetensors"), **arguments)
    assert count == len(model.state_dict())
    model = model.double().eval()
    for output in golden["outputs"]:
        with torch.no_grad():
            logits = model(torch.from_numpy(rule.images(*output["size"])).double())
        expected = torch.tensor(output["logits"], dtype=torch.float64)
        error = (logits[:, : expected.shape[1]] - expected).abs().max().item()
        assert error < 1e-9 * output["deviation"]
        assert logits.std().item() == pytest.approx(output["deviation"], rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"focal_windows": 5}, "level1"),
        ({"normalize_modulator": True}, None),
        ({"post_norm": True}, None),
        ({"layer_scale": 1.0}, "gamma"),
    ],
)
def test_every_setting_shows_in_the_logits_or_in_the_shapes(changes, told):
    plain = filled(create(NANO, num_classes=3))
    other = create(NANO, num_classes=3, **changes).double().eval()
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    if told:
        with pytest.raises(RuntimeError, match=told):
            other.load_state_dict(plain.state_dict())
        return
    other.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert (plain(x) - other(x)).abs().max() > 1e-3


# their checkpoints, and timm's


@pytest.fixture
def theirs(tmp_path):
    """(path, state dict, arguments) of a small file of the authors."""
    torch.save(state := golden_state("overlapping"), tmp_path / "theirs.pth")
    arguments = {n: v for n, v in GOLDEN["overlapping"]["arguments"].items() if n != "num_classes"}
    return tmp_path / "theirs.pth", state, arguments


def refuse(theirs, message, model=NANO, **arguments):
    path = theirs[0]
    with pytest.raises(InvalidInput, match=message) as raised:
        convert(path, path.parent / "out.safetensors", model, {**theirs[2], **arguments})
    assert not (path.parent / "out.safetensors").exists()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["model", "state_dict", "state_dict_ema"])
def test_a_state_dict_in_a_checkpoint(key, theirs):
    path, state, arguments = theirs
    expected = from_authors(state, NANO, arguments)
    torch.save({key: {f"module.{n}": t for n, t in state.items()}, "epoch": 3}, path)
    assert convert(path, path.parent / "out.safetensors", NANO, arguments) == len(expected)
    found = read_tensors(path.parent / "out.safetensors")[0]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[n], expected[n]) for n in found)


def test_tensors_that_share_a_storage_get_their_own(theirs):
    given = {t.data_ptr() for t in theirs[1].values()}
    assert not given & {t.data_ptr() for t in from_authors(theirs[1], NANO, theirs[2]).values()}


def test_a_missing_tensor(theirs):
    del theirs[1]["layers.1.blocks.0.modulation.f.bias"]
    torch.save(theirs[1], theirs[0])
    refuse(theirs, r"theirs.pth is no qna_focalnet_nano_16: layers.1.blocks.0.modulation.f.bias is missing$")


def test_a_tensor_too_many(theirs):
    torch.save({**theirs[1], "norm0.weight": torch.zeros(2)}, theirs[0])
    refuse(theirs, r"it has norm0.weight, which that model has not$")


def test_a_detectors_kernels_are_another_shape(theirs):
    refuse(
        theirs,
        r"modulation.focal_layers.0.0.weight has shape \(16, 1, 3, 3\), not \(16, 1, 9, 9\)",
        focal_windows=9,
    )


def test_a_tensor_of_whole_numbers(theirs):
    theirs[1]["norm.weight"] = torch.ones(32, dtype=torch.int64)
    torch.save(theirs[1], theirs[0])
    refuse(theirs, r"norm.weight is int64, a weight must be of floating point")


def test_levels_that_differ_are_refused(theirs):
    refuse(theirs, r"focal_layers.3.0.weight.*, which that model has not$", focal_levels=[3, 2])


@pytest.mark.parametrize("content", [b"", b"some text", b"PK\x03\x04"], ids=str)
def test_what_is_no_checkpoint(theirs, content):
    theirs[0].write_bytes(content)
    refuse(theirs, "theirs.pth is no PyTorch checkpoint, or a truncated one: ")


def test_a_classifier_of_22k_classes_is_kept_and_one_that_is_not_there_asked_about(theirs, tmp_path):
    path, state, arguments = theirs
    state["head.weight"], state["head.bias"] = torch.randn(21_842, 32), torch.zeros(21_842)
    torch.save(state, path)
    convert(path, tmp_path / "a.safetensors", NANO, arguments)
    model = create(NANO, num_classes=21_842, checkpoint_path=str(tmp_path / "a.safetensors"), **arguments)
    assert torch.equal(model.head.fc.weight, state["head.weight"])
    refuse(theirs, r"it has head.bias \(and 1 more\), which that model has not", num_classes=0)
    del state["head.weight"], state["head.bias"]
    torch.save(state, path)
    (tmp_path / "a.safetensors").unlink()
    refuse(theirs, r"head.weight is missing \(and 1 more\); of one without a classifier say num_classes=0")
    convert(path, tmp_path / "a.safetensors", NANO, {**arguments, "num_classes": 0})
    assert '"num_classes": 0' in read_metadata(tmp_path / "a.safetensors")["arguments"]
    create(NANO, num_classes=0, checkpoint_path=str(tmp_path / "a.safetensors"), **arguments)


def timms(**changes):
    """A small FocalNet of timm's."""
    network = timm.models.focalnet.FocalNet(
        embed_dim=16, depths=(1, 2), num_classes=5, drop_path_rate=0.0, **changes
    )
    return filled(network)


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        (
            {"focal_levels": (3, 2), "focal_windows": (3, 5)},
            {"focal_levels": [3, 2], "focal_windows": [3, 5]},
        ),
        (
            {"use_overlap_down": True, "use_post_norm": True, "layerscale_value": 1e-4,
             "normalize_modulator": True, "use_post_norm_in_modulation": True, "focal_levels": (2, 2),
             "focal_windows": (3, 3)},
            {"overlapping": True, "post_norm": True, "layer_scale": 1e-4, "normalize_modulator": True,
             "norm_in_modulation": True},
        ),
    ],
    ids=["patches", "overlapping"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@torch.no_grad()
def test_equals_timms_through_a_converted_checkpoint(changes, arguments, suffix, tmp_path):
    theirs = timms(**changes)
    source, target = tmp_path / f"timm{suffix}", tmp_path / "ours.safetensors"
    if suffix == ".pth":
        torch.save(theirs.state_dict(), source)
    else:
        write_tensors(source, theirs.state_dict(), {})
    arguments = {"dim": 16, "depths": [1, 2], "patch_size": 4, **arguments}
    convert(source, target, NANO, arguments)
    ours = create(NANO, num_classes=5, checkpoint_path=str(target), dtype=torch.float64, **arguments).eval()
    x = torch.randn(2, 3, 48, 72, dtype=torch.float64)
    expected = theirs(x)
    assert expected.std() > 0.1
    assert (ours(x) - expected).abs().max() < 1e-9 * expected.std()


@pytest.mark.parametrize("suffix", ["tiny_srf", "base_lrf", "large_fl3", "xlarge_fl4", "huge_fl3"])
def test_timms_models_have_the_tensors_that_ours_ask_of_them(suffix):
    with torch.device("meta"):
        theirs = timm.create_model(f"focalnet_{suffix}", num_classes=1000).state_dict()
    found = from_authors(theirs, f"qna_focalnet_{suffix}")
    assert sum(t.numel() for t in found.values()) == FOCALNET[f"qna_focalnet_{suffix}"].parameters


def test_the_command_takes_what_the_model_differs_in(theirs, capsys):
    path, _, arguments = theirs
    given = [f"{n}={','.join(map(str, v)) if isinstance(v, list) else v}" for n, v in arguments.items()]
    assert (
        main([str(path), str(path.parent / "a.safetensors"), "--model", NANO, "--model-kwargs", *given]) == 0
    )
    assert f"tensors of {NANO}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "isotropic"),
    [
        ({}, False),
        ({"norm_in_modulation": True, "layer_scale": 1.0, "post_norm": True}, False),
        ({"depths": (3,)}, True),
    ],
)
def test_names_of_the_authors_are_as_many_as_theirs(arguments, isotropic):
    own = create(NANO, device="meta", **arguments).state_dict()
    named = [authors_name(key, isotropic=isotropic) for key in own]
    # queries with gates, and context, are one map there
    together = {n for n in named if ".modulation.f." in n}
    assert len(set(named)) == len(named) - len(together)
    post = arguments.get("post_norm", False)
    assert len({timms_name(n, post_norm=post) for n in named}) == len(set(named))


# what the sizes say


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [
        *[("tiny_srf", 4.40), ("tiny_lrf", 4.47), ("small_srf", 8.60), ("small_lrf", 8.72)],
        *[("base_srf", 15.24), ("base_lrf", 15.40), ("tiny_iso", 1.11), ("small_iso", 4.30)],
        *[("base_iso", 16.92), ("large_fl3", 35.7), ("xlarge_fl3", 63.1), ("huge_fl3", 118)],
    ],
)
def test_counted_multiply_adds(name, gmacs):
    digits = len(str(gmacs).partition(".")[2])
    counted = total_macs(create(f"qna_focalnet_{name}", device="meta"), (1, 3, 224, 224)) / 1e9
    assert abs(counted - gmacs) <= 0.5 * 10**-digits


@pytest.mark.parametrize(
    ("name", "macs"),
    [("tiny_lrf", 4_474_836_480), ("small_lrf", 8_715_210_240), ("large_fl3", 35_687_058_432)],
)
def test_multiply_adds_that_torch_counts_of_the_authors_code(name, macs):
    assert total_macs(create(f"qna_focalnet_{name}", device="meta"), (1, 3, 224, 224)) == macs


@pytest.mark.parametrize(("name", "count"), [("large_fl3", 239_134_898), ("huge_fl4", None)])
def test_counts_with_22k_classes(name, count):
    name = f"qna_focalnet_{name}"
    plain = FOCALNET[name]
    more = (21_842 - 1000) * (8 * plain.dim + 1)
    model = create(name, num_classes=21_842, device="meta")
    assert sum(p.numel() for p in model.parameters()) == plain.parameters + more
    assert count in (None, plain.parameters + more)


def test_huge_without_a_classifier_counts_as_timms():
    model = create("qna_focalnet_huge_fl4", num_classes=0, device="meta")
    assert sum(p.numel() for p in model.parameters()) == 686_460_664


def test_one_size_alone_divides_what_it_gathered():
    divides = [name for name, variant in FOCALNET.items() if variant.normalize_modulator]
    assert divides == ["qna_focalnet_large_fl4"]
    # timm's does not: the reason for names of our own
    with torch.device("meta"):
        theirs = timm.create_model("focalnet_large_fl4")
    assert not any(getattr(m, "normalize_modulator", False) for m in theirs.modules())
    assert not isinstance(theirs, FocalNet)


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("tiny_srf", (3, 5)),
        ("base_lrf", (3, 5, 7)),
        ("small_iso", (3, 5, 7)),
        ("xlarge_fl3", (5, 7, 9)),
        ("large_fl4", (3, 5, 7, 9)),
        ("huge_fl3", (3, 5, 7)),
    ],
)
def test_published_kernels(name, kernels):
    model = create(f"qna_focalnet_{name}", device="meta")
    mixers = [m for m in model.modules() if hasattr(m, "kernel_sizes")]
    assert {m.kernel_sizes for m in mixers} == {kernels}
    assert all(isinstance(m.norm, nn.LayerNorm) == name.startswith("huge") for m in mixers)


def test_kernels_of_detectors_by_stage():
    model = create("qna_focalnet_tiny_srf", focal_windows=(11, 9, 9, 7), device="meta")
    kernels = [stage[-1].mixer.kernel_sizes for stage in model.stages]
    assert kernels == [(11, 13), (9, 11), (9, 11), (7, 9)]
    lrf = create("qna_focalnet_tiny_lrf", focal_windows=9, device="meta")
    assert {stage[-1].mixer.kernel_sizes for stage in lrf.stages} == {(9, 11, 13)}


# what the parts do


def test_an_isotropic_network_shows_the_map_after_every_block():
    features = create(NANO, depths=(3,), features_only=True)
    assert [tuple(m.shape[1:]) for m in features(torch.randn(1, 3, 15, 32))] == [(32, 8, 16)] * 3
    assert features.feature_info.reduction() == [2, 2, 2]


@pytest.mark.parametrize(
    "arguments", [{}, LARGE, {"depths": (2,), "patch_size": 16}], ids=["patches", "overlapping", "isotropic"]
)
def test_any_image_and_a_gradient_for_every_parameter(arguments):
    model = filled(create(NANO, num_classes=3, drop_path_rate=0.0, **arguments)).train()
    for size in ((32, 32), (33, 47), (64, 32), (5, 70)):
        logits = model(torch.randn(2, 3, *size, dtype=torch.float64))
        assert logits.isfinite().all()
    found = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
    assert all(g.any() for g in found)


@torch.no_grad()
def test_what_fills_up_an_image_stands_behind_its_end():
    for arguments in ({}, LARGE):
        model = filled(create(NANO, num_classes=3, **arguments))
        x = torch.randn(1, 3, 31, 30, dtype=torch.float64)
        reduction = model.feature_info[-1]["reduction"]
        whole = nn.functional.pad(x, (0, -30 % reduction, 0, -31 % reduction))
        rows, columns = (-(-n // model.stem.reduction) for n in (31, 30))
        torch.testing.assert_close(model.stem(x), model.stem(whole)[:, :rows, :columns])


@torch.no_grad()
def test_an_overlapping_halving_fills_up_only_what_its_padding_would():
    """3 x 3 at stride 2 with a position of padding gives as many positions, of the same values."""
    halving = FocalHalving(4, overlapping=True).double()
    x = torch.randn(2, 5, 7, 4, dtype=torch.float64)
    image = halving.conv(x.movedim(-1, 1))
    torch.testing.assert_close(halving(x), halving.norm(image.movedim(1, -1)), rtol=1e-12, atol=1e-12)


def test_the_first_window_of_an_overlapping_stem_has_two_positions_of_padding():
    stem = FocalStem(1, 2, patch_size=4, overlapping=True)
    x = torch.randn(1, 1, 16, 16, requires_grad=True)
    (grad,) = torch.autograd.grad(stem(x)[0, 0, 0, 0], x)
    seen = grad[0, 0] != 0
    assert seen.sum() == 25
    assert seen[:5, :5].all()


@torch.no_grad()
def test_the_block_that_normalises_its_branches():
    model = filled(create(NANO, **LARGE))
    block = model.stages[0][0]
    assert isinstance(block, PostNormBlock)
    x = torch.randn(2, 3, 5, 32, dtype=torch.float64)
    y = x + block.scale1.gamma * block.norm1(block.mixer(x))
    y = y + block.scale2.gamma * block.norm2(block.mlp.fc2(nn.functional.gelu(block.mlp.fc1(y))))
    torch.testing.assert_close(block(x), y, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_held_is_what_lives_at_the_worst_moment_of_a_block():
    block = filled(create(NANO, **LARGE, focal_levels=3)).stages[0][0]
    x = torch.randn(2, 12, 15, 32, dtype=torch.float64)
    with Held(x, *block.parameters()) as held:
        block(x)
    assert 0.9 * held.peak <= block.held(x.shape) <= 1.1 * held.peak


def test_stochastic_depth_grows_linearly():
    model = create(NANO, drop_path_rate=0.3)
    rates = [b.drop_path2.rate for stage in model.stages for b in stage if hasattr(b, "mixer")]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert [FOCALNET[f"qna_focalnet_{n}"].drop_path_rate for n in ("tiny_lrf", "small_srf", "base_srf")] == [
        0.2,
        0.3,
        0.5,
    ]


@torch.no_grad()
def test_a_branch_that_is_left_out_leaves_the_other():
    block = filled(create(NANO, num_classes=3, **LARGE)).stages[0][0]
    assert isinstance(block, PostNormBlock)
    x = torch.randn(2, 5, 6, 32, dtype=torch.float64)
    expected = x + block.scale2(block.norm2(block.mlp(x)))
    assert torch.equal(leave_out(block, "drop_path1")(x), expected)
    assert torch.equal(leave_out(block, "drop_path2")(x), x)


def test_what_no_count_shows_of_the_published_sizes():
    """Images of the three large widths, and where a scale of the branches begins."""
    sizes = {name.removeprefix("qna_focalnet_"): variant for name, variant in FOCALNET.items()}
    large = [n for n in sizes if n.startswith(("large", "xlarge", "huge"))]
    assert {n for n, v in sizes.items() if v.layer_scale} == {"base_iso", *large}
    assert {sizes[n].layer_scale for n in ("base_iso", *large)} == {1e-4}
    assert {n: sizes[n].image_size for n in large} == {
        **{f"{width}_fl{levels}": 384 for width in ("large", "xlarge") for levels in (3, 4)},
        **{f"huge_fl{levels}": 224 for levels in (3, 4)},
    }
    assert {v.image_size for n, v in sizes.items() if n not in (*large, "nano_16")} == {224}


def test_initial_values():
    torch.manual_seed(0)
    model = create(NANO, layer_scale=0.25)
    for block in (b for stage in model.stages for b in stage if hasattr(b, "mixer")):
        mixer, width = block.mixer, block.mixer.dim
        for linear in (mixer.query_gates, mixer.context, mixer.out, block.mlp.fc1, block.mlp.fc2):
            assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert not linear.bias.any()
        # convolutions with the authors
        assert mixer.modulator.weight.abs().max().item() == pytest.approx(width**-0.5, rel=0.02)
        assert mixer.modulator.bias.any()
        assert {*block.scale1.gamma.tolist(), *block.scale2.gamma.tolist()} == {0.25}
    assert model.head.fc.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.no_weight_decay() == set()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"depths": 2}, "depths must be one number per stage, got 2"),
        ({"depths": (2, 0)}, r"FocalNetVariant: depths\[1\] must be an integer of at least 1, got 0"),
        (
            {"focal_levels": (2, 2, 2)},
            r"focal_levels must be one number, or one for each stage of depths=\(2, 2\)",
        ),
        ({"focal_windows": 4}, "focal_windows must be odd, got 4"),
        ({"focal_windows": (3, 2.0)}, r"focal_windows\[1\] must be an integer of at least 0, got 2.0"),
        ({"focal_levels": -1}, r"focal_levels\[0\] must be an integer of at least 0, got -1"),
        (
            {"overlapping": True},
            "patch_size must be 4 where the stem is a convolution of 7x7, got 2; with overl",
        ),
        ({"post_norm": "no"}, "post_norm must be True or False, got 'no'"),
        ({"dim": 0}, "FocalNetVariant: dim must be an integer of at least 1, got 0"),
        ({"drop_path_rate": -0.1}, "drop_path_rate must be at least 0 and below 1, got -0.1"),
    ],
)
def test_sizes_that_are_none(arguments, told):
    with pytest.raises(InvalidInput, match=told):
        create(NANO, **arguments)


def test_a_size_is_a_row():
    model = FocalNet(FocalNetVariant(8, (1, 1, 1), (0, 1, 2), 5, patch_size=6), num_classes=3)
    maps = model.forward_intermediates(torch.randn(1, 3, 40, 23), intermediates_only=True)
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 7, 4), (16, 4, 2), (32, 2, 1)]
