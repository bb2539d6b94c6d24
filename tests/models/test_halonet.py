"""HaloNet: equal to timm's with its weights, its checkpoints, its sizes, any image."""

import pytest
import timm
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.tensor_file import read_metadata, read_tensors, write_tensors
from qna.cli.convert import main
from qna.mixers import HaloAttention2d
from qna.models import HALONET, HaloNet, create
from qna.models.convert import convert
from qna.models.halonet.authors import from_timm
from qna.parts.protocols import MovesPositions

AS_TIMM = {"heads": (8, 8, 8, 8), "tables": "window"}
H1 = "qna_halonet_h1"


def filled(network):
    """Every tensor far from where it starts, the statistics of batch norms among them."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.add_(0.5 * torch.rand_like(tensor))
            elif tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn_like(tensor))
    return network.double().eval()


def timms(**changes):
    """timm's halonet_h1, or a smaller one of the same blocks."""
    if not changes:
        return filled(timm.create_model("halonet_h1", num_classes=10))
    byobnet = timm.models.byobnet
    blocks = tuple(
        byobnet.ByoBlockCfg(type="self_attn", d=d, c=c, s=1 if i == 0 else 2, gs=0, br=1.0)
        for i, (d, c) in enumerate(zip(changes["blocks"], changes["widths"], strict=True))
    )
    config = byobnet.ByoModelCfg(
        blocks=blocks,
        stem_chs=changes["widths"][0],
        stem_type="7x7",
        stem_pool="maxpool",
        num_features=changes.get("final_dim", 0),
        self_attn_layer="halo",
        self_attn_kwargs={"block_size": changes["block_size"], "halo_size": changes["halo_size"]},
    )
    return filled(byobnet.ByobNet(config, num_classes=10))


SMALL = {"blocks": (1, 2, 1, 1), "widths": (32, 32, 64, 64), "block_size": 2, "halo_size": 1}


@pytest.mark.parametrize("changes", [SMALL, {**SMALL, "final_dim": 48}], ids=["plain", "final"])
@torch.no_grad()
def test_equals_timms_blocks(changes):
    theirs = timms(**changes)
    ours = create(H1, num_classes=10, **AS_TIMM, **changes).double().eval()
    ours.load_state_dict(from_timm(theirs.state_dict(), H1, {**AS_TIMM, **changes}))
    x = torch.randn(2, 3, 64, 128, dtype=torch.float64)
    expected = theirs(x)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-9 * expected.std().item())
    for ours_map, theirs_map in zip(
        ours.forward_intermediates(x, norm=True, intermediates_only=True),  # timm's last holds it too
        theirs.forward_intermediates(x, [-4, -3, -2, -1], intermediates_only=True),
        strict=True,
    ):
        tolerance = 1e-9 * theirs_map.std().item()
        torch.testing.assert_close(ours_map, theirs_map, rtol=0, atol=tolerance)


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@torch.no_grad()
def test_equals_timms_halonet_h1_through_a_converted_checkpoint(suffix, tmp_path):
    theirs = timms()
    source, target = tmp_path / f"timm{suffix}", tmp_path / "ours.safetensors"
    if suffix == ".pth":
        torch.save(theirs.state_dict(), source)
    else:
        write_tensors(source, theirs.state_dict(), {})
    assert convert(source, target, H1, AS_TIMM) == len(theirs.state_dict())
    ours = create(H1, num_classes=10, checkpoint_path=str(target), **AS_TIMM, dtype=torch.float64).eval()
    for size in ((256, 256), (256, 512)):
        x = torch.randn(2 if size[0] == size[1] else 1, 3, *size, dtype=torch.float64)
        expected = theirs(x)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-9 * expected.std().item())


def test_the_command_takes_what_the_model_differs_in(tmp_path, capsys):
    torch.save(timms(**SMALL).state_dict(), tmp_path / "timm.pth")
    given = [
        "heads=8,8,8,8",
        "tables=window",
        "blocks=1,2,1,1",
        "widths=32,32,64,64",
        "block_size=2",
        "halo_size=1",
    ]
    files = [str(tmp_path / "timm.pth"), str(tmp_path / "a.safetensors")]
    assert main([*files, "--model", H1, "--model-kwargs", *given]) == 0
    assert f"tensors of {H1}" in capsys.readouterr().out


def test_a_converted_file_says_how_the_model_differs(tmp_path):
    changes = {**AS_TIMM, **SMALL}
    torch.save({"state_dict": timms(**SMALL).state_dict()}, tmp_path / "timm.pth")
    convert(tmp_path / "timm.pth", tmp_path / "a.safetensors", H1, changes)
    assert '"tables": "window"' in read_metadata(tmp_path / "a.safetensors")["arguments"]
    model = create(H1, num_classes=10, **changes).double()
    model.load_state_dict(read_tensors(tmp_path / "a.safetensors")[0])


@pytest.mark.parametrize(
    ("change", "arguments", "says"),
    [
        (
            lambda w: w,
            {"tables": "window"},
            r"height_rel has shape \(7, 4\), not \(7, 8\); timm's own have heads=\(8, 8",
        ),
        (lambda w: w.pop("head.fc.bias"), {}, "is no qna_halonet_h1: head.fc.bias is missing"),
        (lambda w: w.update(a=torch.ones(1)), {}, "it has a, which that model has not"),
        (
            lambda w: w.update({"stem.conv1.bn.weight": torch.ones(64)}),
            {},
            r"stem.conv1.bn.weight has shape \(64,\), not \(32,\)",
        ),
        (
            lambda w: w.update({"stem.conv1.bn.weight": torch.ones(32, dtype=torch.int64)}),
            {},
            "stem.conv1.bn.weight is int64",
        ),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused_by_name(change, arguments, says, tmp_path):
    weights = dict(timms(**SMALL).state_dict())
    change(weights)
    torch.save(weights, tmp_path / "timm.pth")
    given = {**SMALL, **(arguments or AS_TIMM)}
    with pytest.raises(InvalidInput, match=says):
        convert(tmp_path / "timm.pth", tmp_path / "a.safetensors", H1, given)
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"a\.pth is no checkpoint of PyTorch, or a truncated one"):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors", H1)


def test_timms_name_stays_timms():
    assert not isinstance(timm.create_model("halonet_h1", num_classes=2), HaloNet)
    assert set(timm.list_models("*halonet_h?")) == {*HALONET, "halonet_h1"}


def parameters(name, **changes):
    with torch.device("meta"):
        return sum(p.numel() for p in create(name, **changes).parameters())


@pytest.mark.parametrize(
    ("name", "window_tables"),
    [
        ("halonet_h0", 5_502_248),
        (H1, 8_101_352),
        ("halonet_h2", 9_405_608),
        ("halonet_h3", 11_842_792),
        ("halonet_h4", 19_103_464),
        ("halonet_h5", 30_718_952),
        ("halonet_h6", 43_458_280),
        ("halonet_h7", 67_434_728),
    ],
)
def test_parameters_with_the_larger_tables(name, window_tables):
    assert parameters(name, tables="window") == window_tables


def test_h1_as_timm_has_it_has_its_parameters():
    assert parameters(H1, **AS_TIMM) == 8_100_056


@pytest.mark.parametrize("name", HALONET)
def test_layers_that_the_paper_counts(name):
    """Each block three, and stem and classifier: 50 for H0 to 107 for H7."""
    layers = {"halonet_h0": 50, H1: 59, "halonet_h2": 62, "halonet_h3": 65, "halonet_h4": 65}
    layers |= {"halonet_h5": 98, "halonet_h6": 101, "halonet_h7": 107}
    with torch.device("meta"):
        model = create(name)
    blocks = [block for stage in model.stages for block in stage]
    assert 3 * len(blocks) + 2 == layers[name]
    assert [block.mixer.stride for block in blocks].count(2) == 3
    assert [stage[0].mixer.num_heads for stage in model.stages] == [4, 8, 8, 8]
    for block in blocks:
        assert block.mixer.out_dim == HALONET[name].value_ratio * block.mixer.dim


def small(**changes):
    return filled(create("halonet_h0", num_classes=3, **{**SMALL, "heads": (4, 4, 4, 4), **changes}))


@torch.no_grad()
def test_padding_the_map_to_whole_blocks_changes_nothing_where_zeros_are_keys():
    """At its end; the attention of timm takes such maps alone."""
    model, x = small(), torch.randn(1, 5, 7, 32, dtype=torch.float64)
    attention = model.stages[0][0].mixer
    whole = nn.functional.pad(x, (0, 0, 0, 1, 0, 1))
    torch.testing.assert_close(attention(x), attention(whole)[:, :5, :7], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_borders_and_tables_reach_every_attention():
    x = torch.randn(2, 3, 40, 56, dtype=torch.float64)
    zero = small()
    masked = small(border="mask")
    masked.load_state_dict(zero.state_dict())
    assert (zero(x) - masked(x)).abs().max() > 1e-3
    for model, wanted in (
        (small(border="mask", tables="window"), ("mask", "window")),
        (zero, ("zero", "offsets")),
    ):
        attentions = [m for m in model.modules() if isinstance(m, HaloAttention2d)]
        assert {(a.border, a.tables) for a in attentions} == {wanted}


@torch.no_grad()
def test_blocks_tell_how_positions_move():
    block, x = small().stages[1][0], torch.randn(2, 5, 7, 16, dtype=torch.float64)
    assert isinstance(block, MovesPositions)
    rows, skip = block.position_step(x)
    assert rows.shares.shape[1] == 3 * 4
    assert skip is not None
    assert skip.sources[:, 0].tolist() == [0, 2, 4, 6, 14, 16, 18, 20, 28, 30, 32, 34]
    assert small().stages[1][1].position_step(block(x))[1] is None


def test_drop_path_grows_linearly_over_all_blocks():
    model = create("halonet_h0", num_classes=0, drop_path_rate=0.3, device="meta")
    rates = [block.drop_path.rate for stage in model.stages for block in stage]
    assert rates == pytest.approx([0.3 * i / 15 for i in range(16)])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"blocks": (1, 2)}, r"one number per stage in each of blocks=\(1, 2\), widths="),
        ({"heads": (4, 0, 4, 4)}, r"heads must hold integers of at least 1, got \(4, 0, 4, 4\)"),
        ({"expansion": 0.3}, "expansion times each of widths=.* must be a positive integer, got 0.3"),
        ({"final_dim": 0}, "final_dim must be a positive integer or None, got 0"),
        ({"heads": (3, 4, 4, 4)}, "num_heads must divide dim, got num_heads=3"),
        ({"block_size": 3}, "stride must divide block_size=3, got 2"),
        ({"border": "clamp"}, "unknown border 'clamp'"),
    ],
)
def test_settings_that_cannot_be(changes, says):
    with pytest.raises(InvalidInput, match=says):
        create("halonet_h0", **changes)
