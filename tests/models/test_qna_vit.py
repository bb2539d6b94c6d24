"""QnA-ViT: published sizes, stems, skip paths, heads, stochastic depth, wrong arguments."""

import subprocess
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from qna._core.errors import InvalidInput
from qna.models import QNA_VIT, Backbone, BlockSpec, QnAViT
from qna.models._parts.block import MixerBlock
from qna.models._parts.shortcut import AveragePoolShortcut, StridedShortcut
from qna.models._parts.stem import PatchStem, ResNetStem
from qna.parts.drop_path import DropPath
from qna.parts.mlp import ChannelMlp

SMALL = "qna_vit_nano_16"
each_model = pytest.mark.parametrize(
    "name", [n if n == SMALL else pytest.param(n, marks=pytest.mark.long) for n in sorted(QNA_VIT)]
)


def test_registered_under_every_name():
    assert set(timm.list_models("qna_vit*")) == set(QNA_VIT)
    assert isinstance(timm.create_model(SMALL, num_classes=0), QnAViT)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("qna_vit_tiny", 15_715_560),
        ("qna_vit_tiny_7x7", 15_753_960),
        ("qna_vit_small", 24_971_560),
        ("qna_vit_base", 55_670_008),
    ],
)
def test_published_parameter_counts(name, count):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    ("name", "limit"), [("qna_vit_nano_16", 0.6e6), ("qna_vit_micro_32", 10e6), ("qna_vit_mini_64", 11e6)]
)
def test_small_variants_stay_small(name, limit):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=10)
    assert sum(p.numel() for p in model.parameters()) < limit


def test_blocks_of_the_published_models():
    """(self-attention, QnA) blocks per stage, as the authors configure them; a strided one begins each."""
    for name, window, learned in [
        ("qna_vit_tiny", (0, 0, 4, 2), (2, 3, 2, 0)),
        ("qna_vit_small", (0, 0, 12, 2), (2, 3, 6, 0)),
        ("qna_vit_base", (0, 0, 12, 2), (2, 3, 6, 0)),
    ]:
        for i, stage in enumerate(QNA_VIT[name].stages()):
            kinds = [(b.mixer, b.stride) for b in stage]
            strided = [("QnA2d", 2)] if i else []
            assert kinds == strided + [("WindowAttention2d", 1)] * window[i] + [("QnA2d", 1)] * learned[i]
    with torch.device("meta"):
        base = timm.create_model("qna_vit_base")
    assert [base.stages[i][-1].mixer.num_heads for i in range(4)] == [6, 12, 24, 24]
    assert [base.stages[i][0].mixer.num_heads for i in range(4)] == [6, 12, 24, 48]
    assert {
        b.mixer.project.query.shape[-1] for s in base.stages for b in s if hasattr(b.mixer, "project")
    } == {16}


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 5)])
def test_patch_stem_pads_the_smaller_half_first(size):
    stem, x = PatchStem(3, 8, 4), torch.randn(2, 3, *size)
    height, width = -(-size[0] // 4), -(-size[1] // 4)
    margins = [(height * 4 - size[0]), (width * 4 - size[1])]
    canvas = torch.zeros(2, 3, height * 4, width * 4)
    top, left = margins[0] // 2, margins[1] // 2
    canvas[:, :, top : top + size[0], left : left + size[1]] = x
    patches = canvas.unflatten(2, (height, 4)).unflatten(4, (width, 4))  # B, C, H', 4, W', 4
    expected = torch.einsum("bcyixj,dcij->byxd", patches, stem.conv.weight)
    torch.testing.assert_close(stem(x), expected, rtol=1e-5, atol=1e-5)
    assert stem(x).is_contiguous()


def test_33_by_47_as_the_documentation_says():
    model = timm.create_model("qna_vit_tiny").eval()
    maps = model.forward_intermediates(torch.randn(2, 3, 33, 47), intermediates_only=True)
    assert [tuple(m.shape[2:]) for m in maps] == [(9, 12), (5, 6), (3, 3), (2, 2)]


@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_resnet_stem_reduces_by_four(size):
    stem = ResNetStem(3, 8).eval()
    y = stem(torch.randn(2, 3, *size))
    assert y.shape == (2, -(-size[0] // 4), -(-size[1] // 4), 8)
    assert y.isfinite().all()


def test_resnet_stem_in_a_model():
    model = timm.create_model(SMALL, stem="resnet").eval()
    assert [i["reduction"] for i in model.feature_info] == [4, 8, 16]
    maps = model.forward_intermediates(torch.randn(1, 3, 33, 47), intermediates_only=True)
    assert [tuple(m.shape[2:]) for m in maps] == [(9, 12), (5, 6), (3, 3)]


class Double(nn.Module):
    """A mixer of no registered kind: a block asks nothing of it."""

    out_dim = 8

    def forward(self, x):
        return 2 * x


def test_a_block_holds_any_mixer():
    block, x = MixerBlock(8, Double(), out_dim=8), torch.randn(2, 3, 5, 8)
    middle = x + 2 * F.layer_norm(x, (8,), eps=1e-6)
    expected = middle + block.mlp(F.layer_norm(middle, (8,), eps=1e-6))
    torch.testing.assert_close(block(x), expected)


def test_a_model_of_other_mixers():
    """The backbone takes blocks of any registered mixer, from data."""
    window = BlockSpec("WindowAttention2d", {"num_heads": 2, "window_size": 3})
    down = BlockSpec("QnA2d", {"num_heads": 2, "kernel_size": (5, 2)}, stride=2)
    model = Backbone([[window], [down, window]], dim=16, pool_heads=4, num_classes=5)
    assert model(torch.randn(2, 3, 40, 24)).shape == (2, 5)


def test_mlp_uses_the_tanh_form_of_gelu():
    mlp, x = ChannelMlp(4, 16), torch.randn(3, 4)
    expected = mlp.fc2(F.gelu(mlp.fc1(x), approximate="tanh"))
    torch.testing.assert_close(mlp(x), expected)
    assert (expected - mlp.fc2(F.gelu(mlp.fc1(x)))).abs().max() > 0


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1)])
def test_shortcuts(size):
    x = torch.randn(2, *size, 3)
    strided = StridedShortcut(3, 6, stride=2)
    conv = F.conv2d(x.permute(0, 3, 1, 2), strided.proj.weight[:, :, None, None], stride=2)
    torch.testing.assert_close(strided(x), conv.permute(0, 2, 3, 1))
    pooled = AveragePoolShortcut(3, 6, stride=2, window=3)
    expected = torch.zeros(2, -(-size[0] // 2), -(-size[1] // 2), 3)
    before = [max((-(-n // 2) - 1) * 2 + 3 - n, 0) // 2 for n in size]
    for i in range(expected.shape[1]):
        for j in range(expected.shape[2]):
            rows = slice(max(0, 2 * i - before[0]), 2 * i - before[0] + 3)
            columns = slice(max(0, 2 * j - before[1]), 2 * j - before[1] + 3)
            expected[:, i, j] = x[:, rows, columns].sum((1, 2)) / 9
    torch.testing.assert_close(pooled(x), pooled.proj(expected))


def test_avgpool_shortcut_in_a_model():
    model = timm.create_model(SMALL, shortcut="avgpool")
    assert isinstance(model.stages[1][0].shortcut, AveragePoolShortcut)
    assert model.stages[1][0].shortcut.window == 3
    assert model(torch.randn(2, 3, 17, 30)).shape == (2, 1000)


def test_drop_path_grows_linearly_over_all_blocks():
    with torch.device("meta"):
        model = timm.create_model("qna_vit_tiny", drop_path_rate=0.3)
        base = timm.create_model("qna_vit_base")
    blocks = [b for stage in model.stages for b in stage]
    assert len(blocks) == 16
    for i, block in enumerate(blocks):
        assert block.drop_path2.rate == pytest.approx(0.3 * i / 15)
        strided = not isinstance(block.shortcut, nn.Identity)
        # where the map changes its shape, the mixer is never left out
        assert isinstance(block.drop_path1, nn.Identity) == strided
        assert strided or block.drop_path1.rate == block.drop_path2.rate
    assert base.stages[-1][-1].drop_path2.rate == 0.5


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    y = drop(x)
    assert {tuple(r.unique().tolist()) for r in y} == {(0.0,), (y.max().item(),)}
    assert y.max().item() == pytest.approx(1 / 0.75)
    assert y.mean().item() == pytest.approx(1, abs=0.04)  # deviation 0.009
    assert torch.equal(drop.eval()(x), x)


def test_average_pool_and_its_two_names():
    a, b = timm.create_model(SMALL, global_pool="avg"), timm.create_model(SMALL, global_pool="gap")
    b.load_state_dict(a.state_dict())
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(a(x), b(x))
    features = a.forward_features(x)
    assert torch.equal(a.forward_head(features, pre_logits=True), features.mean((1, 2)))


@pytest.mark.parametrize("size", [(16, 16), (33, 47)])
def test_learned_query_heads(size):
    v1 = timm.create_model(SMALL, global_pool="qnav1").eval()
    v2 = timm.create_model(SMALL, global_pool="qnav2").eval()
    v2.load_state_dict(v1.state_dict())
    x = torch.randn(2, 3, *size)
    features = v1.forward_features(x)
    attended = v1.head.pool.attention(features)
    assert v1.head.pool.attention.map_size == (2, 2)  # of the nominal 16 x 16
    torch.testing.assert_close(v1.forward_head(features, pre_logits=True), attended)
    torch.testing.assert_close(v2.forward_head(features, pre_logits=True), attended + features.mean((1, 2)))
    assert v1.no_weight_decay() >= {"head.pool.attention.project.position.table"}


def test_nominal_size_of_the_learned_query_heads():
    model = timm.create_model("qna_vit_tiny", global_pool="qnav1", img_size=(224, 160))
    assert model.head.pool.attention.map_size == (7, 5)
    assert model.head.pool.attention.num_heads == 64


def test_a_learned_query_head_on_an_earlier_stage():
    """Its heads keep their channels, and its tables are for the map that they now stand on."""
    model = timm.create_model(SMALL, global_pool="qnav1", img_size=(48, 32)).eval()
    model.prune_intermediate_layers([1])
    model.reset_classifier(3, "qnav2")
    attention = model.head.pool.attention
    assert (attention.dim, attention.num_heads, attention.map_size) == (64, 8, (12, 8))
    assert model(torch.randn(2, 3, 33, 47)).shape == (2, 3)


@each_model
def test_no_weight_decay_exempts_position_bias_and_query_weights_only(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    tables = {n for n, _ in model.named_parameters() if n.rpartition(".")[2] in ("table", "position_table")}
    assert model.no_weight_decay() == tables
    blocks = [b for stage in model.stages for b in stage]
    windowed = sum(hasattr(b.mixer, "position_table") for b in blocks)
    assert len(tables) == windowed + 2 * (len(blocks) - windowed)


@each_model
def test_a_layer_of_its_own_for_each_block(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    layers = timm.models.group_parameters(model, model.group_matcher())
    # the stem, each block, and what follows the last
    assert len(layers) == sum(len(stage) for stage in model.stages) + 2


@each_model
def test_fuse_changes_only_the_parameters(name):
    model, x = timm.create_model(name).eval().double(), torch.randn(2, 3, 32, 32).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        before = model(x)
        torch.testing.assert_close(model.fuse()(x), before, rtol=1e-10, atol=1e-10)
    assert not [n for n, _ in model.named_parameters() if n.endswith((".key", ".query"))]


def test_weights_from_a_file_with_another_head(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    source = timm.create_model(SMALL)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    overlay = {"file": str(tmp_path / "weights.safetensors")}
    model = timm.create_model(
        SMALL, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=5, in_chans=1
    )
    assert torch.equal(model.stages[1][0].mixer.project.query, source.stages[1][0].mixer.project.query)
    torch.testing.assert_close(model.stem.conv.weight, source.stem.conv.weight.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stem": "resnett"}, "unknown stem 'resnett'; did you mean 'resnet'"),
        ({"global_pool": "qnav3"}, "unknown global_pool 'qnav3'; did you mean 'qnav"),
        ({"shortcut": "avgpol"}, "unknown shortcut 'avgpol'; did you mean 'avgpool'"),
        ({"img_size": 0}, "img_size must be an integer of at least 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        timm.create_model(SMALL, **arguments)


def test_wrong_images_are_named():
    model = timm.create_model(SMALL)
    with pytest.raises(InvalidInput, match=r"images must be \(B, C, H, W\) with C = 3, got \(2, 1, 16, 16\)"):
        model(torch.randn(2, 1, 16, 16))


def test_without_timm_one_sentence_names_the_extra():
    hide = (
        "import sys; sys.modules['timm'] = None\n"
        "import qna\n"
        "try: qna.models\n"
        "except ImportError as e: print(e)"
    )
    run = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "qna.models needs the package 'timm': pip install 'qna[models]'"
