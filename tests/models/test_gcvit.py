"""GC ViT: logits of the authors' code and of timm's, both kinds of checkpoints, sizes, refusals."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.gcvit import GlobalContextVit
from torch import nn

from qna._core.errors import InvalidInput
from qna.analysis import attention_rollout
from qna.analysis.cost import total_macs
from qna.mixers import GlobalContextAttention2d, WindowAttention2d
from qna.mixers.global_context import GlobalQuery
from qna.models import GCVIT, GCViT, GCViTVariant, create
from qna.models._parts.block import MixerBlock
from qna.models.convert import convert
from qna.models.gcvit.authors import authors_name, timm_name
from tests.models.golden import rule

GOLDEN = json.loads((Path(__file__).parent / "golden" / "gcvit.json").read_text())
NANO = "qna_gcvit_nano_32"
PUBLISHED = [name for name in GCVIT if name != NANO]


def their_shape(key, name, tensor):
    """The shape there of our tensor `key`."""
    shape = tuple(tensor.shape)
    if name.endswith("position_bias_table"):
        return (shape[0] * shape[1], shape[2])
    # of the light residuals all linear maps are convolutions in both, but for the authors' SE
    convolved = key.endswith("linear.weight") or (".se." in name)
    return (*shape, 1, 1) if convolved else shape


def state_of(network, named):
    """What a file would hold in which our tensors have the names `named` says."""
    names = {key: named(key, network) for key in network.state_dict()}
    return {
        names[key]: torch.from_numpy(rule.torch_tensor(names[key], their_shape(key, names[key], tensor)))
        for key, tensor in network.state_dict().items()
    }


def golden_state(case):
    """What the authors' file of a case would hold."""
    golden = GOLDEN[case]
    network = create(golden["model"], device="meta", num_classes=golden["classes"], **golden["arguments"])
    return state_of(network, authors_name)


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.std()).item()


# what the authors' networks compute


@pytest.mark.parametrize(
    "case", [c if c == "gcvit" else pytest.param(c, marks=pytest.mark.long) for c in GOLDEN]
)
def test_logits_of_the_authors_network(case, tmp_path):
    golden, state = GOLDEN[case], golden_state(case)
    indices = {
        name.replace("bias_table", "index"): torch.zeros(3, 3, dtype=torch.int64)
        for name in state
        if name.endswith("relative_position_bias_table")
    }
    assert len(state) + len(indices) == golden["tensors"]
    torch.save({"state_dict": {**state, **indices}}, tmp_path / "theirs.pth.tar")
    count = convert(
        tmp_path / "theirs.pth.tar", tmp_path / "ours.safetensors", golden["model"], golden["arguments"]
    )
    assert count == len(state)
    model = create(
        golden["model"],
        checkpoint_path=str(tmp_path / "ours.safetensors"),
        num_classes=golden["classes"],
        **golden["arguments"],
    )
    model = model.double().eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(rule.images(*(golden["pixels"],) * 2)).double())
    expected = torch.tensor(golden["logits"], dtype=torch.float64)
    error = (logits[:, : expected.shape[1]] - expected).abs().max().item()
    assert error < 1e-9 * golden["deviation"]
    assert logits.std().item() == pytest.approx(golden["deviation"], rel=1e-9)


SMALL = {"depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "layer_scale": 0.5}


def pair(tmp_path, size, windows):
    """timm's network of a size, and ours with its weights, both in float64; every tensor is random."""
    # timm rounds the channels of its squeezes up to 8
    small = {"embed_dim": 32, "mlp_ratio": 2.0, "num_classes": 7}
    theirs = GlobalContextVit(img_size=size, **small, **SMALL).double().eval()
    state = {
        n: torch.from_numpy(rule.torch_tensor(n, tuple(t.shape))) for n, t in theirs.state_dict().items()
    }
    theirs.load_state_dict({n: t.double() for n, t in state.items()})
    torch.save(state, tmp_path / "timm.pth")
    arguments = {"dim": 32, **SMALL, "window_sizes": windows}
    convert(tmp_path / "timm.pth", tmp_path / "ours.safetensors", "qna_gcvit_small", arguments)
    path = str(tmp_path / "ours.safetensors")
    ours = create("qna_gcvit_small", checkpoint_path=path, num_classes=7, **arguments)
    return theirs, ours.double().eval()


@pytest.mark.parametrize(
    ("size", "windows"),
    [((224, 224), (7, 7, 14, 7)), ((128, 256), ((4, 8), (4, 8), (8, 16), (4, 8)))],
    ids=["square", "wide"],
)
@torch.no_grad()
def test_logits_of_timm_one_image_at_a_time_and_a_batch_of_ours(size, windows, tmp_path):
    """A version of timm that repeats the queries of images in another order differs in a batch alone."""
    theirs, ours = pair(tmp_path, size, windows)
    x = torch.from_numpy(rule.images(*size)).double()
    expected = torch.cat([theirs(image[None]) for image in x])
    # images that say something of their own
    assert relative_error(expected[:1], expected[1:]) > 0.1
    assert relative_error(ours(x), expected) < 1e-9


@pytest.mark.parametrize("size", [(64, 64), (97, 70)])
@torch.no_grad()
def test_no_image_sees_another(size):
    torch.manual_seed(0)
    model = create(NANO, num_classes=5).double().eval()
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(4, 3, *size, dtype=torch.float64)
    logits, order = model(x), [2, 0, 3, 1]
    for i in range(4):
        torch.testing.assert_close(model(x[i : i + 1]), logits[i : i + 1], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(model(x[order]), logits[order], rtol=1e-11, atol=1e-12)


@pytest.mark.filterwarnings("ignore")  # the tracer's own: the checks of shapes are not recorded
@torch.no_grad()
def test_a_traced_graph_is_right_for_other_sizes():
    """Also where a map is smaller than its windows, or its query has another size."""
    torch.manual_seed(0)
    model = create(NANO, num_classes=5).double().eval()
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    traced = torch.jit.trace(model, torch.randn(2, 3, 40, 33, dtype=torch.float64), check_trace=False)
    for size in ((64, 64), (33, 47), (4, 90)):
        x = torch.randn(3, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(traced(x), model(x), rtol=1e-11, atol=1e-12)


@torch.no_grad()
def test_every_image_size_and_the_far_corner_counts():
    """Down to one pixel; and a map that is filled up loses nothing at its end."""
    torch.manual_seed(0)
    model = create("qna_gcvit_small", dim=16, num_classes=3, **SMALL).double().eval()
    for size in ((1, 1), (32, 32), (33, 95), (250, 40)):
        assert model(torch.randn(1, 3, *size, dtype=torch.float64)).isfinite().all()
    x = torch.randn(1, 3, 65, 100, dtype=torch.float64)
    other = x.clone()
    other[..., -1, -1] += 1
    maps = [model.forward_intermediates(i, intermediates_only=True) for i in (x, other)]
    assert all((a[..., -1, -1] - b[..., -1, -1]).abs().max() > 0 for a, b in zip(*maps, strict=True))


# checkpoints


@pytest.fixture
def theirs(tmp_path):
    """(path, state dict, arguments) of a small file of the authors."""
    state = golden_state("gcvit")
    torch.save(state, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth", state, GOLDEN["gcvit"]["arguments"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda s: s.pop("levels.0.q_global_gen.to_q_global.2.conv.3.weight"),
            r"2.conv.3.weight is missing$",
        ),
        (
            lambda s: s.update({"levels.0.attn.mask": torch.zeros(2)}),
            "it has levels.0.attn.mask, which that model has not$",
        ),
        (
            lambda s: s.update({"levels.0.blocks.1.attn.relative_position_bias_table": torch.zeros(169, 2)}),
            r"relative_position_bias_table has shape \(169, 2\), not \(13, 13, 1\)",
        ),
    ],
)
def test_what_is_not_whole_is_refused(change, told, theirs):
    path, state, arguments = theirs
    change(state)
    torch.save(state, path)
    with pytest.raises(InvalidInput, match=told) as raised:
        convert(path, path.parent / "out.safetensors", "qna_gcvit_small", arguments)
    assert not (path.parent / "out.safetensors").exists()
    assert "\n" not in str(raised.value)


def test_weights_of_larger_windows_need_the_argument(theirs):
    path, _, arguments = theirs
    windows = {**arguments, "window_sizes": (12, 12, 24, 12)}
    with pytest.raises(InvalidInput, match=r"position_bias_table has shape \(169, 1\), not \(23, 23"):
        convert(path, path.parent / "out.safetensors", "qna_gcvit_small", windows)


def test_both_files_of_one_network_give_one_state(tmp_path):
    """Values by our names, written under either's names."""
    network = create("qna_gcvit_xxtiny", dim=16, num_heads=(1, 2, 4, 8), num_classes=4)
    own = {n: torch.randn_like(t) for n, t in network.state_dict().items()}
    found = []
    for kind, named in (("authors", authors_name), ("timm", timm_name)):
        names = {n: named(n, network) for n in own}
        file = {names[n]: t.reshape(their_shape(n, names[n], t)) for n, t in own.items()}
        torch.save(file, tmp_path / f"{kind}.pth")
        arguments = {"dim": 16, "num_heads": (1, 2, 4, 8)}
        convert(tmp_path / f"{kind}.pth", tmp_path / f"{kind}.safetensors", "qna_gcvit_xxtiny", arguments)
        found.append(load_file(tmp_path / f"{kind}.safetensors"))
    for state in found:
        assert state.keys() == own.keys()
        assert all(torch.equal(state[n], own[n]) for n in own)


@pytest.mark.parametrize("size", ["xxtiny", "xtiny", "tiny", "small", "base"])
def test_every_tensor_of_timm_has_a_place(size):
    ours = create(f"qna_gcvit_{size}", device="meta")
    with torch.device("meta"):
        theirs = timm.create_model(f"gcvit_{size}").state_dict()
    names = {timm_name(n, ours): (n, t) for n, t in ours.state_dict().items()}
    assert names.keys() == {n for n in theirs if not n.endswith("relative_position_index")}
    assert all(their_shape(n, name, t) == tuple(theirs[name].shape) for name, (n, t) in names.items())


# what the sizes say


@pytest.mark.parametrize(
    ("name", "gmacs"),
    # counted of the authors' code, of which the README's differ for xtiny, tiny2 and small2
    [
        pytest.param(
            *case, marks=() if case[0] in ("qna_gcvit_xxtiny", "qna_gcvit_xtiny") else pytest.mark.long
        )
        for case in zip(PUBLISHED, (2.12, 2.91, 4.76, 6.18, 8.53, 11.5, 14.8, 32.6), strict=True)
    ],
)
def test_published_multiply_adds(name, gmacs):
    counted = total_macs(create(name, device="meta"), (1, 3, 224, 224)) / 1e9
    # to the digits that are printed
    assert f"{counted:.{2 if gmacs < 10 else 1}f}" == f"{gmacs:.{2 if gmacs < 10 else 1}f}"


@pytest.mark.long
@pytest.mark.parametrize(
    ("windows", "parameters", "pixels", "gmacs"),
    [((12, 12, 24, 12), 202_860_610, 384, 103.9), ((16, 16, 32, 16), 203_795_362, 512, 202.1)],
)
def test_the_largest_at_other_sizes(windows, parameters, pixels, gmacs):
    model = create("qna_gcvit_large", device="meta", window_sizes=windows)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert f"{total_macs(model, (1, 3, pixels, pixels)) / 1e9:.1f}" == str(gmacs)


def test_every_second_block_has_global_queries():
    model = create("qna_gcvit_tiny", device="meta")
    for i, stage in enumerate(model.stages):
        blocks = [b for b in stage if isinstance(b, MixerBlock)]
        assert len(blocks) == (3, 4, 19, 5)[i]
        kinds = [GlobalContextAttention2d if n % 2 else WindowAttention2d for n in range(len(blocks))]
        assert [type(b.mixer) for b in blocks] == kinds
        assert {b.mixer.window_size for b in blocks} == {(14, 14) if i == 2 else (7, 7)}
        assert [m.halvings for m in stage.modules() if isinstance(m, GlobalQuery)] == [(3, 2, 0, 0)[i]]
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-5}


def test_a_stage_of_one_block_makes_no_query():
    model = create(NANO, depths=(1, 3), num_classes=2)
    queries = [[m for m in stage.modules() if isinstance(m, GlobalQuery)] for stage in model.stages]
    assert [len(q) for q in queries] == [0, 1]
    names = [authors_name(n, model) for n in model.state_dict()]
    assert len(set(names)) == len(names)
    assert "levels.0.blocks.0.norm1.weight" in names
    model(torch.randn(1, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_does_not_decay():
    model = create(NANO)
    assert model.no_weight_decay() == {n for n, _ in model.named_parameters() if n.endswith("position_table")}
    assert len(model.no_weight_decay()) == 4


def test_initial_values():
    torch.manual_seed(0)
    model = create("qna_gcvit_xxtiny", depths=(2, 2, 2, 2))
    block = model.stages[3][2]
    for weight in (block.mixer.qkv.weight, block.mlp.fc2.weight, block.mixer.position_table):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not block.mixer.qkv.bias.any()
    # those that are convolutions there: uniform of variance 1 / (3 C)
    residual = model.stages[3][1][0]
    assert residual.linear.weight.std().item() == pytest.approx((1 / (3 * 512)) ** 0.5, rel=0.05)
    assert residual.excite.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_stochastic_depth_and_scales_of_branches():
    model = create(NANO, drop_path_rate=0.3, layer_scale=0.25)
    blocks = [b for stage in model.stages for b in stage if isinstance(b, MixerBlock)]
    for kind in ("drop_path1", "drop_path2"):
        assert [getattr(b, kind).rate for b in blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert all((getattr(b, f"scale{i}").gamma == 0.25).all() for b in blocks for i in (1, 2))
    rates = [GCVIT[name].drop_path_rate for name in PUBLISHED]
    assert rates == [0.2, 0.2, 0.2, 0.25, 0.3, 0.35, 0.5, 0.5]


def test_rollout_follows_positions_through_all_stages():
    torch.manual_seed(0)
    model, x = create(NANO).eval(), torch.randn(2, 3, 45, 70)
    rollout = attention_rollout(model, x)
    # of the map inside the stem
    assert rollout.relevance.shape == (2, 23, 35)
    torch.testing.assert_close(rollout.relevance.mean((1, 2)), torch.ones(2), rtol=0, atol=1e-4)
    assert len(rollout.layers) == 6


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"depths": (2, 2, 2)}, r"one num_heads per stage, got depths=\(2, 2, 2\), num_heads=\(2, 4\)"),
        ({"depths": (2, 0)}, r"depths\[1\] must be an integer of at least 1, got 0"),
        ({"window_sizes": 7}, "one window_sizes per stage, got .*window_sizes=7"),
        ({"window_sizes": (7, (3, 0))}, r"window_sizes\[1\]"),
        ({"halvings": (1, -1)}, r"halvings\[1\] must be an integer of at least 0, got -1"),
        ({"num_heads": (2, 5)}, "num_heads"),
        ({"layer_scale": 0}, "layer_scale must be above 0 and finite, or None, got 0"),
        ({"layer_scale": "1e-5"}, "layer_scale must be above 0 and finite, or None, got '1e-5'"),
        ({"mlp_ratio": 2.5}, "mlp_ratio must be an integer of at least 1, got 2.5"),
    ],
)
def test_sizes_that_are_none(arguments, told):
    with pytest.raises(InvalidInput, match=told) as raised:
        create(NANO, **arguments)
    assert "\n" not in str(raised.value)


def test_a_size_is_a_row():
    variant = GCViTVariant(8, (2, 1, 3), (1, 2, 4), ((3, 5), 4, 2), (2, 1, 0))
    model = GCViT(variant, num_classes=3)
    maps = model.forward_intermediates(torch.randn(1, 3, 41, 22), intermediates_only=True)
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 11, 6), (16, 6, 3), (32, 3, 2)]
