"""Networks of varied-size windows: logits of the authors' ViTAEv2, their checkpoints, blocks, and limits."""

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.analysis import attention_rollout
from qna.analysis.cost import total_macs
from qna.mixers import VariedSizeWindowAttention2d, WindowAttention2d
from qna.models import SWIN_VSA, VITAEV2_VSA, create
from qna.models.convert import convert
from qna.models.vsa.authors import authors_name, authors_shape
from qna.models.vsa.blocks import VariedSizeBlock
from qna.models.vsa.cells import NormalCell, ReductionCell
from tests.mixers.varied_size.test_window_attention import Held
from tests.models.golden import rule

GOLDEN = json.loads((Path(__file__).parent / "golden" / "vsa.json").read_text())
SWIN, VITAE = "swin_vsa_nano_16", "vitaev2_vsa_nano_16"


def golden_state(case):
    """What the authors' file of a case would hold."""
    state = {}
    for name, shape in GOLDEN[case]["shapes"].items():
        if name.endswith(("relative_position_index", "num_batches_tracked")):
            state[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        state[name] = torch.from_numpy(rule.torch_tensor(name, tuple(shape)))
    return state


def filled(network):
    """Every tensor far from where it starts, in float64."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.double().eval()


# what the authors' networks compute, and their files


@pytest.mark.parametrize("key", [None, "state_dict_ema"])
@pytest.mark.parametrize("case", GOLDEN)
def test_logits_of_the_authors_network(case, key, tmp_path, caplog):
    golden, state = GOLDEN[case], golden_state(case)
    torch.save(state if key is None else {key: state}, tmp_path / "theirs.pth")
    arguments = {n: v for n, v in golden["arguments"].items() if n != "num_classes"}
    with caplog.at_level(logging.WARNING, "qna"):
        count = convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", golden["model"], arguments)
    tables = sum(name.endswith("relative_position_index") for name in state)
    assert f"left out of {tmp_path / 'theirs.pth'}: {tables} tables" in caplog.text
    model = create(
        golden["model"], checkpoint_path=str(tmp_path / "ours.safetensors"), num_classes=7, **arguments
    )
    assert count == len(model.state_dict()) == len(state) - tables
    model = model.double().eval()
    for output in golden["outputs"]:
        with torch.no_grad():
            logits = model(torch.from_numpy(rule.images(output["size"], output["size"])).double())
        error = (logits - torch.tensor(output["logits"], dtype=torch.float64)).abs().max().item()
        assert error < 1e-9 * output["deviation"]


@pytest.fixture
def theirs(tmp_path):
    """(path, state dict) of a small file of the authors."""
    return tmp_path / "theirs.pth", golden_state("wide")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("layers.1.RC.attn.sampling_scales.2.bias"), "sampling_scales.2.bias is missing$"),
        (
            lambda s: s.update({"layers.0.NC.0.attn.mask": torch.zeros(2)}),
            "it has layers.0.NC.0.attn.mask, which that model has not$",
        ),
        (
            lambda s: s.update({"layers.0.NC.0.attn.proj.weight": torch.zeros(16, 16)}),
            r"proj.weight has shape \(16, 16\), not \(16, 16, 1, 1\)$",
        ),
        (
            lambda s: s.update({"head.bias": torch.zeros(7, dtype=torch.int32)}),
            "head.bias is int32, it must be of floating point$",
        ),
        (
            lambda s: s.update({"layers.0.RC.PCM.1.num_batches_tracked": torch.zeros(())}),
            "num_batches_tracked is float32, it must be whole numbers$",
        ),
    ],
)
def test_what_is_not_whole_is_refused(change, told, theirs):
    path, state = theirs
    change(state)
    torch.save(state, path)
    with pytest.raises(InvalidInput, match=told):
        convert(path, path.parent / "out.safetensors", VITAE)
    assert not (path.parent / "out.safetensors").exists()


@pytest.mark.parametrize("name", VITAEV2_VSA)
def test_every_tensor_has_a_name_of_its_own_in_the_authors_file(name):
    state = create(name, device="meta").state_dict()
    theirs = {authors_name(key) for key in state}
    assert len(theirs) == len(state)
    assert all(n.startswith(("layers.", "head.")) for n in theirs)
    # as many numbers as there
    shapes = [(authors_shape(authors_name(n), tuple(t.shape)), t) for n, t in state.items()]
    assert all(torch.Size(shape).numel() == t.numel() for shape, t in shapes)


# what they are made of


@pytest.mark.parametrize("name", [*SWIN_VSA, *VITAEV2_VSA])
def test_multiply_adds_are_those_of_the_counter(name):
    variant = {**SWIN_VSA, **VITAEV2_VSA}[name]
    model = create(name, device="meta")
    macs = total_macs(model, (1, 3, variant.image_size, variant.image_size))
    published = {"vitaev2_vsa_small": 5.72, "swin_vsa_tiny": 4.56}
    if name in published:
        assert macs / 1e9 == pytest.approx(published[name], abs=0.005)
    assert macs > 0


def test_norms_have_the_authors_epsilons():
    model = create("vitaev2_vsa_small", device="meta")
    epsilons = [m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)]
    # two in each of four reduction cells
    assert epsilons.count(1e-5) == 8
    assert epsilons.count(1e-6) == len(epsilons) - 8 == 28


@torch.no_grad()
def test_the_embedding_of_positions_reaches_the_attention_alone():
    block = filled(create(SWIN, num_classes=2)).stages[0][0]
    x = torch.randn(2, 5, 7, 32, dtype=torch.float64)
    embedded = x + block.cpe.conv(x.movedim(-1, 1)).movedim(1, -1)
    y = x + block.mixer(block.norm1(embedded))
    torch.testing.assert_close(block(x), y + block.mlp(block.norm2(y)), rtol=0, atol=1e-12)
    assert (block.mixer(block.norm1(embedded)) - block.mixer(block.norm1(x))).abs().max() > 1e-2
    rows, skip = block.position_step(x)
    assert skip is None
    assert torch.equal(rows.shares, block.mixer.attention_rows(block.norm1(embedded)).shares)


@torch.no_grad()
def test_convolutions_of_a_cell_see_what_came_in():
    cell = filled(create(VITAE, num_classes=2)).stages[0][0]
    x = torch.randn(2, 5, 7, 16, dtype=torch.float64)
    convolved = nn.Sequential.forward(cell.convolutions, x.movedim(-1, 1)).movedim(1, -1)
    y = x + cell.mixer(cell.norm1(cell.cpe(x))) + convolved
    torch.testing.assert_close(cell(x), y + cell.mlp(cell.norm2(y)), rtol=0, atol=1e-12)


@torch.no_grad()
def test_with_windows_at_rest_it_is_a_network_of_plain_ones():
    """Also where windows leave the map, as long as no bias makes other keys of zeros there."""
    model = filled(create(SWIN, num_classes=3, zero_init=True))
    for module in model.modules():
        if isinstance(module, VariedSizeWindowAttention2d):
            for linear in (module.scales, module.offsets):
                linear.weight.zero_()
                linear.bias.zero_()
            module.qkv.bias.zero_()
    x = torch.randn(2, 3, 22, 40, dtype=torch.float64)
    expected = model(x)
    for block in (m for m in model.modules() if isinstance(m, VariedSizeBlock)):
        old = block.mixer
        block.mixer = WindowAttention2d(
            old.dim, num_heads=old.num_heads, window_size=3, bias=True, border="zero"
        ).double()
        keys = block.mixer.state_dict()
        block.mixer.load_state_dict({n: t for n, t in old.state_dict().items() if n in keys})
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "change"),
    [(SWIN, {"padding": "centred"}), (VITAE, {"padding": "centred"}), (SWIN, {"window_size": 4})],
)
@torch.no_grad()
def test_settings_show_in_the_logits(name, change):
    plain, other = (create(name, num_classes=3, **options).double().eval() for options in ({}, change))
    weights = filled(plain).state_dict()
    own = other.state_dict()
    other.load_state_dict({n: t if own[n].shape == t.shape else own[n] for n, t in weights.items()})
    x = torch.randn(2, 3, 22, 40, dtype=torch.float64)
    assert (plain(x) - other(x)).abs().max() > 1e-3 * plain(x).std()


@pytest.mark.parametrize("name", [SWIN, VITAE])
@torch.no_grad()
def test_held_covers_what_lives_in_a_block(name):
    block = filled(create(name, num_classes=2)).stages[1][1]
    size = (2, 12, 15, block.out_dim)
    x = torch.randn(size, dtype=torch.float64)
    with Held(x, *block.parameters(), *block.buffers()) as held:
        block(x)
    assert 0.9 * held.peak <= block.held(size) <= 1.3 * held.peak
    assert isinstance(block, NormalCell if name == VITAE else VariedSizeBlock)


def test_swins_attention_can_be_rolled_out():
    model, x = filled(create(SWIN, num_classes=3)), torch.randn(2, 3, 20, 28, dtype=torch.float64)
    rollout = attention_rollout(model, x)
    # what is read outside the map is nobody's
    assert rollout.relevance.shape == (2, 10, 14)
    assert 0.1 < rollout.relevance.mean() <= 1
    assert rollout.relevance.std() > 1e-3


@torch.no_grad()
def test_a_reduction_fills_up_what_it_does_not_divide():
    cell = filled(create(VITAE, num_classes=2)).stages[1][0]
    assert isinstance(cell, ReductionCell)
    x = torch.randn(2, 5, 7, 16, dtype=torch.float64)
    y = cell(x)
    assert y.shape == (2, 3, 4, 32)
    padded = nn.functional.pad(x, (0, 0, 0, 1, 0, 1))
    assert torch.equal(cell(padded), y)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        (SWIN, {"head_dim": 5}, "head_dim must divide dim=32, got 5"),
        (SWIN, {"depths": ()}, r"depths must be one number per stage, got \(\)"),
        (SWIN, {"padding": "top"}, "unknown padding 'top'"),
        (SWIN, {"zero_init": 1}, "zero_init must be True or False, got 1"),
        (VITAE, {"depths": (1,)}, "dims and depths must have one number for each stage, got 2 and 1"),
        (VITAE, {"reductions": (3, 2)}, r"reductions must be 2 or 4, got \(3, 2\)"),
        (VITAE, {"dilations": ((1,),)}, r"dilations must be a tuple for each stage, got \(\(1,\),\)"),
        (VITAE, {"dilations": ((1,), ())}, r"dilations\[1\] must be one number per convolution, got \(\)"),
        (VITAE, {"wide": 2}, "wide must be True or False, got 2"),
    ],
)
def test_what_is_refused(name, options, told):
    with pytest.raises(InvalidInput, match=told):
        create(name, **options)
