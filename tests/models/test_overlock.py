"""OverLoCK: logits of the authors' code, both forms, their checkpoints, sizes, and what is refused."""

import json
import logging
from pathlib import Path

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.tensor_file import read_tensors
from qna._core.with_losses import WithLosses
from qna.analysis.cost import total_macs
from qna.mixers import ContMix2d
from qna.models import OVERLOCK, OverLoCKVariant, create
from qna.models.convert import convert
from qna.models.overlock.authors import from_authors
from qna.models.overlock.blocks import ChannelAffine, DynamicBlock, LargeKernelBlock, ResponseNorm
from qna.models.overlock.stages import AuxiliaryHead
from tests.models.golden import rule
from tests.models.left_out import leave_out

GOLDEN = json.loads((Path(__file__).parent / "golden" / "overlock.json").read_text())
NANO = "overlock_nano_32"
SMALL = {n: v for n, v in GOLDEN["small"]["arguments"].items() if n != "num_classes"}


def golden_state(case):
    """What the authors' file of a case would hold."""
    state = {}
    for name, shape in GOLDEN[case]["shapes"].items():
        counted = name.endswith("num_batches_tracked")
        state[name] = torch.tensor(3) if counted else torch.from_numpy(rule.torch_tensor(name, tuple(shape)))
    return state


def filled(network, scale=0.1):
    """Every tensor far from where it starts, statistics too, in float64."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.add_(scale * (noise.abs() if name.endswith("running_var") else noise))
    return network.double().eval()


def gradients(model, x):
    return torch.autograd.grad(model(x).square().sum(), list(model.parameters()), allow_unused=True)


# what the authors' networks compute


@pytest.mark.parametrize("case", GOLDEN)
def test_logits_of_the_authors_network(case, tmp_path):
    golden = GOLDEN[case]
    torch.save(golden_state(case), tmp_path / "theirs.pth")
    arguments = dict(golden["arguments"])
    count = convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", golden["model"], arguments)
    model = create(golden["model"], checkpoint_path=str(tmp_path / "ours.safetensors"), **arguments)
    assert count == len(model.state_dict())
    model = model.double().eval()
    for output in golden["outputs"]:
        expected = torch.tensor(output["logits"], dtype=torch.float64)
        x = torch.from_numpy(rule.images(*output["size"])).double()
        with torch.no_grad():
            logits = model(x)
        assert (logits - expected).abs().max().item() < 1e-9 * output["deviation"]
        assert logits.std().item() == pytest.approx(output["deviation"], rel=1e-9)


@torch.no_grad()
def test_the_deployed_form_is_the_trained_one():
    model = filled(create(NANO, num_classes=3))
    x = torch.randn(2, 3, 50, 37, dtype=torch.float64)
    expected = model(x)
    deployed = create(NANO, num_classes=3, deploy=True).double().eval()
    assert model.reparameterize() is model
    deployed.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12 * expected.std().item())
    assert torch.equal(deployed(x), model(x))
    assert not [n for n, _ in model.named_modules() if "small" in n]
    # once more changes nothing
    assert torch.equal(model.fuse()(x), deployed(x))


# their checkpoints


@pytest.fixture
def theirs(tmp_path):
    """(path, state dict) of a small file of the authors."""
    torch.save(state := golden_state("small"), tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth", state


def refuse(path, message, **arguments):
    with pytest.raises(InvalidInput, match=message) as raised:
        convert(path, path.parent / "out.safetensors", NANO, {**SMALL, **arguments})
    assert not (path.parent / "out.safetensors").exists()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["model", "state_dict", "state_dict_ema"])
@pytest.mark.parametrize("case", ["small", "deployed"])
def test_a_state_dict_in_a_checkpoint(key, case, tmp_path):
    state, arguments = golden_state(case), {**SMALL, "deploy": case == "deployed"}
    expected = from_authors(state, NANO, arguments)
    torch.save({key: {f"module.{n}": t for n, t in state.items()}, "epoch": 3}, tmp_path / "a.pth")
    assert convert(tmp_path / "a.pth", tmp_path / "a.safetensors", NANO, arguments) == len(expected)
    found = read_tensors(tmp_path / "a.safetensors")[0]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[n], expected[n]) for n in found)


def test_the_second_head_is_kept_or_said_to_be_left_out(theirs, caplog):
    path, state = theirs
    with caplog.at_level(logging.WARNING, logger="qna"):
        convert(path, path.parent / "a.safetensors", NANO, SMALL)
    heads = [n for n in state if n.startswith("aux_head")]
    assert f"{len(heads)} tensors of {path} are left out, those of its second head" in caplog.text
    caplog.clear()
    convert(path, path.parent / "b.safetensors", NANO, {**SMALL, "aux_weight": 0.4})
    assert not caplog.text
    found = read_tensors(path.parent / "b.safetensors")[0]
    assert torch.equal(found["aux_head.fc.weight"], state["aux_head.2.weight"][:, :, 0, 0])


def test_the_other_form_is_named(theirs):
    refuse(theirs[0], r"is of the trained form: convert it without deploy=true", deploy=True)
    torch.save(golden_state("deployed"), theirs[0])
    refuse(theirs[0], r"is of the deployed form: convert it with deploy=true$")


def test_tensors_that_share_a_storage_get_their_own(theirs):
    state = theirs[1]
    given = {t.data_ptr() for t in state.values()}
    own = from_authors(state, NANO, SMALL)
    assert not given & {t.data_ptr() for t in own.values()}


def test_a_missing_tensor(theirs):
    del theirs[1]["sub_blocks3.1.weight_proj.bias"]
    torch.save(theirs[1], theirs[0])
    refuse(theirs[0], r"theirs.pth is no overlock_nano_32: sub_blocks3.1.weight_proj.bias is missing$")


def test_a_tensor_too_many_of_another_shape_or_of_whole_numbers(theirs):
    path, state = theirs
    torch.save({**state, "norm0.weight": torch.zeros(2)}, path)
    refuse(path, r"it has norm0.weight, which that model has not$")
    refuse(path, r"it has blocks1.0.proj.1.dil_bn_k3_3.bias", kernel_sizes=[5, 5, 7, 5])
    torch.save({**state, "sub_blocks4.0.rpb2": torch.zeros(2, 7, 7)}, path)
    refuse(path, r"sub_blocks4.0.rpb2 has shape \(2, 7, 7\), not \(2, 9, 9\)")
    torch.save({**state, "head.1.weight": torch.ones(24, dtype=torch.int64)}, path)
    refuse(path, r"head.1.weight is int64, a weight must be of floating point")


# what the sizes say


@pytest.mark.parametrize(
    ("name", "trained", "deployed"),
    [
        ("overlock_xt", 17_307_272, 16_453_712),
        ("overlock_t", 34_990_472, 33_467_040),
        ("overlock_s", 58_309_772, 56_156_452),
        ("overlock_b", 98_012_968, 94_942_528),
    ],
)
def test_published_counts(name, trained, deployed):
    """With the second head as trained; without it, deployed: what the authors print."""
    with_head = create(name, aux_weight=0.4, device="meta")
    assert sum(p.numel() for p in with_head.parameters()) == trained
    model = create(name, deploy=True, device="meta")
    assert sum(p.numel() for p in model.parameters()) == deployed


# thousands of calls without data
@pytest.mark.long
@pytest.mark.parametrize(("name", "gmacs"), [("xt", 2.70), ("t", 5.65), ("s", 9.89), ("b", 17.1)])
def test_published_multiply_adds(name, gmacs):
    """Of the deployed form."""
    model = create(f"overlock_{name}", deploy=True, device="meta")
    digits = len(str(gmacs).partition(".")[2])
    assert round(total_macs(model, (1, 3, 224, 224)) / 1e9, digits) == gmacs


def test_stochastic_depth_grows_through_base_overview_and_focus():
    model = create(NANO, drop_path_rate=0.5)
    rates = [getattr(m, "drop_path", None) or m.drop_path2 for m in model.modules()
             if isinstance(m, LargeKernelBlock | DynamicBlock)]  # fmt: skip
    assert [r.rate for r in rates] == pytest.approx([i / 12 for i in range(7)])


@torch.no_grad()
def test_a_branch_that_is_left_out_leaves_the_skip_path():
    model = filled(create(NANO, num_classes=3))
    block, x = model.stages[2][1], torch.randn(2, 5, 6, 16, dtype=torch.float64)
    assert isinstance(block, LargeKernelBlock)
    assert torch.equal(leave_out(block, "drop_path")(x), block.scale(block.conv(x)))
    block = model.stages[3][1]
    assert isinstance(block, DynamicBlock)
    z, overview = (torch.randn(2, 4, 6, n, dtype=torch.float64) for n in (40, 8))
    x, context = z.split((32, 8), -1)
    fed = torch.cat([x, block.context_scale(context) + block.overview_scale(overview)], -1)
    skipped = block.conv2(block.scale1(block.conv1(fed)))
    expected = block.scale2(skipped) + block.mlp(block.norm2(skipped))
    assert torch.equal(leave_out(block, "drop_path1")(z, overview), expected)
    assert torch.equal(leave_out(block, "drop_path2")(z, overview), block.scale2(skipped))


def test_initial_values():
    """The authors' draw of linear maps and convolutions; their tables of bias begin at zero here."""
    torch.manual_seed(0)
    model = create(NANO, aux_weight=0.4)
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    drawn = torch.cat([m.weight.detach().flatten() for m in layers])
    assert drawn.std().item() == pytest.approx(0.02, rel=0.02)
    assert all(m.weight.any() and (m.bias is None or not m.bias.any()) for m in layers)
    tables = {n: p for n, p in model.named_parameters() if n.endswith("_rpb")}
    assert len(tables) == 6
    assert not any(p.any() for p in tables.values())


# the second head


@torch.no_grad()
def test_the_second_head_by_its_definition():
    head = filled(AuxiliaryHead(6, 3))
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    norm = head.norm
    normed = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    expected = normed.mean((1, 2)) @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(head(x), expected, rtol=1e-12, atol=1e-12)


def test_the_overview_is_judged_in_training():
    torch.manual_seed(0)
    model = create(NANO, num_classes=3, aux_weight=0.4)
    x = torch.randn(4, 3, 32, 32)
    output = model(x)
    assert isinstance(output, WithLosses)
    assert output.output.shape == output.supervised["aux"].output.shape == (4, 3)
    assert output.supervised["aux"].weight == 0.4
    # the head sees the overview and nothing that comes after it
    found = torch.autograd.grad(
        output.supervised["aux"].output.sum(), list(model.parameters()), allow_unused=True
    )
    seen = {n for (n, _), g in zip(model.named_parameters(), found, strict=True) if g is not None}
    third = model.stages[2]
    focus = {f"stages.2.{i}." for i in range(third.ends[1] - 1, len(third))}
    assert {"aux_head.fc.weight", "stem.conv1.weight"} <= seen
    assert not [n for n in seen if n.startswith(("stages.3.", "head.", *focus))]
    assert isinstance(model.eval()(x), torch.Tensor)


def test_the_second_head_follows_the_first():
    model = create(NANO, num_classes=3, aux_weight=0.4).double()
    model.reset_classifier(5)
    output = model(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    assert output.output.shape == output.supervised["aux"].output.shape == (2, 5)
    model.reset_classifier(0)
    assert model.aux_head is None


# what the parts do


def test_a_block_with_dynamic_kernels_takes_its_context_from_the_overview():
    model = filled(create(NANO, num_classes=3))
    block = model.stages[3][1]
    z, overview = (torch.randn(1, 4, 6, n, dtype=torch.float64) for n in (40, 8))
    overview.requires_grad_()
    assert torch.autograd.grad(block(z, overview).square().sum(), overview)[0].any()
    first = model.stages[2][model.stages[2].ends[1]]
    assert first.context_scale is None
    assert isinstance(first.mixer, ContMix2d)


@torch.no_grad()
def test_the_scale_is_on_the_skip_path():
    block = filled(create(NANO, num_classes=3)).stages[2][1]
    assert isinstance(block.scale, ChannelAffine)
    x = torch.randn(1, 5, 6, 16, dtype=torch.float64)
    before = block(x)
    block.scale.weight.zero_()
    block.scale.bias.fill_(2.0)
    skip = block.conv(x)
    changed = before - block(x)
    block.scale.weight.copy_(torch.ones(16))
    block.scale.bias.zero_()
    torch.testing.assert_close(changed.std() > 0, torch.tensor(True))
    torch.testing.assert_close(block(x) - skip, block.mlp(block.excite(_normed(block, skip))))


def _normed(block, x):
    return block.mixer_norm(block.mixer(block.norm(x)).movedim(-1, 1)).movedim(1, -1)


@torch.no_grad()
def test_a_response_norm_is_the_identity_at_first_and_by_its_formula_then():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    norm = ResponseNorm(5).double()
    assert torch.equal(norm(x), x)
    norm.gamma.fill_(0.5)
    norm.beta.fill_(-1.0)
    size = x.square().sum((1, 2), keepdim=True).sqrt()
    expected = x * (1 + 0.5 * size / (size.mean(-1, keepdim=True) + 1e-6)) - 1
    torch.testing.assert_close(norm(x), expected, rtol=1e-12, atol=1e-12)
    # squares of these overflow in half precision
    assert norm.half()(torch.full((1, 300, 300, 5), 100.0, dtype=torch.float16)).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, 100), (torch.float16, 1)])
def test_autocast_gives_numbers_at_any_size(dtype, scale):
    model = filled(create(NANO, num_classes=3)).float()
    for size in ((32, 32), (33, 70), (5, 200)):
        x = scale * torch.randn(2, 3, *size)
        with torch.autocast("cpu", dtype=dtype):
            logits = model(x)
        # of a chain of some forty products in 8 or 11 bits
        torch.testing.assert_close(logits.float(), model(x), rtol=0.2, atol=0.2 * model(x).std().item())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"depths": (2, 2)}, r"depths must be 4 numbers, got \(2, 2\)"),
        ({"dims": (8, 8, 16, 18)}, r"4 must divide the last of dims, got \(8, 8, 16, 18\)"),
        ({"kernel_sizes": (7, 7, 7, 4)}, r"kernel_size must be one of 3, 5, .*, got 4"),
        ({"focus_depths": (1, 0)}, r"focus_depths\[1\] must be an integer of at least 1, got 0"),
        ({"num_heads": (3, 2)}, r"num_heads must divide dim, got num_heads=3 and dim=16"),
        ({"small_kernel_size": 7}, r"small_kernel_size must be from 1 to kernel_size=5, got 7"),
        ({"aux_weight": -1.0}, r"aux_weight must be at least 0 and finite, got -1.0"),
        ({"deploy": 1}, r"deploy must be True or False, got 1"),
        ({"drop_path_rate": "a"}, "drop_path_rate must be at least 0 and below 1, got 'a'"),
    ],
)
def test_sizes_that_are_none(arguments, told):
    with pytest.raises(InvalidInput, match=told):
        create(NANO, **arguments)


def test_sizes_are_data():
    assert all(isinstance(variant, OverLoCKVariant) for variant in OVERLOCK.values())
    assert [OVERLOCK[f"overlock_{n}"].drop_path_rate for n in ("xt", "t", "s", "b")] == [0.1, 0.15, 0.4, 0.5]
